"""What notebooks show of records and examples, read back from the markup."""

import html
import re
from html.parser import HTMLParser

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.alignment import align_records
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.testing import toy_examples, toy_tokenizer

ALLOWED = {"div", "span", "ul", "li", "code", "table", "tr", "td"}


class Reader(HTMLParser):
    """Collects the tags, and the characters below each kind of mark."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.found = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(dict(attributes).get("style", ""))

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if any("pre-wrap" in style for style in self.open):
            self.found += [
                (c, any("background" in s for s in self.open), any("700" in s for s in self.open))
                for c in data
            ]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_the_text_of_a_record_stays_text(prompt, target):
    page = Reader(Record(prompt, target)._repr_html_())
    shown = "".join(c for c, _, _ in page.found)
    # Parsers read every end of a line as one.
    assert shown.replace("\r\n", "\n").replace("\r", "\n") == (prompt + target).replace(
        "\r\n", "\n"
    ).replace("\r", "\n")
    assert page.tags <= ALLOWED


def test_causes_are_shaded_and_the_answer_is_underlined():
    note = Annotation(Span("<b>"), (Span("8"), Span("x & y")))
    record = Record("x & y: 8, <script>alert(1)</script> ", "<b>", (note,), where="a<b.jsonl")
    text = record._repr_html_()
    page = Reader(text)
    assert page.tags <= ALLOWED
    assert "".join(c for c, shaded, _ in page.found if shaded) == "x & y8"
    assert "".join(c for c, _, bold in page.found if bold) == "<b>"
    assert "a&lt;b.jsonl" in text
    flat = html.unescape(re.sub("<[^>]*>", "", text))
    assert flat.endswith("<b> depends on 8, x & y")


def test_long_records_are_cut_in_the_middle():
    record = Record("a" * 5_000 + " 8 is ", "High", (Annotation(Span("High"), (Span("8"),)),) * 14)
    text = record._repr_html_()
    assert len(text) < 6_000
    assert "… 3,001 characters …" in text
    assert "… 2 more" in text


def test_an_example_shows_its_ids_and_counts():
    record = Record("a=3 b=4 a is ", "3", (Annotation(Span("3", 13), (Span("a=3", 0),)),))
    (example,), _ = align_records([record], toy_tokenizer(), max_length=99)
    text = example._repr_html_()
    assert Reader(text).tags <= ALLOWED
    found = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", text)
    assert found == [
        ("tokens", "15"), ("trained", "2"), ("annotated queries", "1"), ("causal keys", "3"),
    ]  # fmt: skip
    marks = Reader(text).found
    ids = [int(x) for x in "".join(c for c, _, _ in marks).split()]
    np.testing.assert_array_equal(ids, example.tokens)
    shaded = "".join(c for c, is_shaded, _ in marks if is_shaded).split()
    assert [int(x) for x in shaded] == example.tokens[:3].tolist()
    (long,) = toy_examples(1, length=300)
    assert "… 44 more" in long._repr_html_()
