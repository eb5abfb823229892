"""Shown records: what training reads of them, in text, colours and HTML."""

import html.parser
import json
import re
from functools import partial

import numpy as np
import pytest
from rich.console import Console

import cat_jax as cat
from cat_jax.analysis.records.show import Dependence
from cat_jax.data.bitset import decode
from cat_jax.testing import toy_model, toy_records, toy_tokenizer

RECORDS = toy_records(count=7)


@pytest.fixture
def shown():
    return cat.show_records(RECORDS, toy_tokenizer(), count=3)


def test_what_is_shown_is_what_training_reads(shown):
    """Every record alone: its mask, unfolded, is the union of what is shown."""
    examples, stats = cat.align_records(RECORDS, toy_tokenizer(), max_length=256)
    assert shown.stats == stats
    assert shown.lengths.tolist() == [len(example.tokens) for example in examples]
    assert len(shown.records) == 3
    for record, example, of in zip(shown.records, examples, RECORDS, strict=False):
        assert "".join(record.tokens[:-1]) == of.text
        assert record.tokens[-1] == toy_tokenizer().eos_token
        np.testing.assert_array_equal(record.trained, example.target_mask)
        mask = np.zeros((len(example.tokens),) * 2, bool)
        for dependence in record.dependences:
            for effect in dependence.effects:
                mask[effect - 1, dependence.causes] = True
        np.testing.assert_array_equal(mask, decode(example.q_bits, example.k_bits))


def test_dependences_name_tokens():
    record = cat.Record(
        "a=3 b=4 a is ", "3", (cat.Annotation(cat.Span("3", 12 + 1), (cat.Span("a=3"),)),)
    )
    (found,) = cat.show_records([record], toy_tokenizer()).records
    ((effects, causes),) = [(d.effects, d.causes) for d in found.dependences]
    assert [found.tokens[n] for n in effects] == ["3"]
    assert "".join(found.tokens[n] for n in causes) == "a=3"
    assert found.dependences == [Dependence(effects, causes)]


def test_records_that_are_left_out_say_why():
    long = cat.Record("a=3 " * 20, "3")
    shown = cat.show_records([*RECORDS[:2], long], toy_tokenizer(), max_length=30)
    assert [record.left_out for record in shown.records[:2]] == [None, None]
    assert re.fullmatch(r"it has \d+ tokens, over 30", shown.records[2].left_out or "")
    assert shown.stats.too_long == 1
    assert "left out: it has" in str(shown)


def test_conversations_that_the_template_alters_say_why():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}<turn_end>{% endfor %}"
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    plain = {"messages": [{"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]}
    shown = cat.show_records([talk, plain], tokenizer)
    assert "the chat template alters it: " in str(shown.records[0].left_out)
    assert shown.records[1].left_out is None
    assert ("left out, altered by the chat template", "1") in shown.facts()
    assert "chat template alters it" in shown._repr_html_()


def test_words_that_are_not_found_are_named():
    record = cat.Record("a=3 a is ", "3", (cat.Annotation(cat.Span("3"), (cat.Span("b=9"),)),))
    shown = cat.show_records([record], toy_tokenizer())
    assert "not found: cause 'b=9'" in str(shown)
    assert ("annotated words found", "1 of 2") in shown.facts()
    assert ("records without annotation", "1") in shown.facts()


def test_the_published_matching_shows_its_own_mask():
    records = [cat.Record("a=3 a is ", "3", (cat.Annotation(cat.Span("3"), (cat.Span("a"),)),))]
    examples, _ = cat.align_records(records, toy_tokenizer(), max_length=99, match="reference")
    (record,) = cat.show_records(records, toy_tokenizer(), match="reference").records
    expected = decode(examples[0].q_bits, examples[0].k_bits).any(axis=1).nonzero()[0] + 1
    assert sorted(n for d in record.dependences for n in d.effects) == expected.tolist()


def coloured(shown):
    console = Console(width=200, force_terminal=True, color_system="standard", record=True)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_effects_and_causes_are_coloured_in_a_terminal(shown):
    text = coloured(shown)
    assert "\x1b[36m" in text  # cyan
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert "".join(shown.records[0].tokens) in lines


def test_text_from_data_is_no_markup(shown):
    record = cat.Record("[bold]a[/bold] \x1b[31m", "[/]")
    assert "[bold]a[/bold]" in str(cat.show_records([record], toy_model()))


class Parser(html.parser.HTMLParser):
    """Tags, their attributes, and the text outside of styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


HOSTILE = "<script>alert(1)</script> \"'& a=3 </div> "


def test_a_page_is_whole_and_escaped(tmp_path):
    annotated = (cat.Annotation(cat.Span("3<b>"), (cat.Span("a=3"),)),)
    records = [cat.Record(HOSTILE, "3<b>", annotated, where="<i>.jsonl"), *RECORDS]
    shown = cat.show_records(records, toy_tokenizer(), count=2)
    shown.save_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    parsed = Parser(page)
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "img", "i", "b", "iframe"})
    assert not [
        a for _, attrs in parsed.tags for a in attrs if a in ("src", "href") or a[:2] == "on"
    ]
    assert not re.search(r"url\(|@import|https?:", page)
    assert HOSTILE + "3<b>" in "".join(parsed.text)
    assert "<i>.jsonl" in "".join(parsed.text)


def test_marks_on_a_page_are_those_of_training(shown):
    parsed = Parser(shown._repr_html_())
    spans = [attrs.get("class") or "" for tag, attrs in parsed.tags if tag == "span"][1:]
    trained = [x for record in shown.records for x in record.trained.tolist()]
    marked = [
        any(n in (*d.effects, *d.causes) for d in record.dependences)
        for record in shown.records
        for n in range(len(record.tokens))
    ]
    assert ["trained" in names for names in spans] == trained
    assert ["marked" in names for names in spans] == marked


@pytest.fixture
def run(run_command):
    return partial(run_command, "show_records")


def test_the_command(run, shared, tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [{"q": "Tom ran 3 miles. How many? ", "a": "3", "important": [{"3": ["3 miles"]}]}] * 3
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ("--model.name", shared / "models/stories260K")
    columns = ("--columns", "input=q", "target=a")
    status, out, err = run(file, *model, *columns, "--count", 2, "--html", tmp_path / "a.html")
    assert (status, err) == (0, "")
    assert f"{file}, line 1" in out.replace("\n", "")
    assert "line 3" not in out
    assert re.search(r"3\s+depends on\s+3 miles", out)
    assert "annotated words found" in out
    assert "<title>Records</title>" in (tmp_path / "a.html").read_text()
    status, out, err = run(tmp_path / "none.jsonl", *model)
    assert (status, out, err.count("\n")) == (2, "", 1)
    status, _, err = run(file, *model, *columns, "--html", file / "a.html")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = run(file, *model, "--count", 0)
    assert (status, err.count("\n")) == (2, 1)
