import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.markdown import escape, markdown_table

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["C"]))


def test_a_table():
    table = markdown_table(["name", "a|b", "n"], [["x_y", "", "3"], ["z  w\n", "*", "4"]])
    assert table.splitlines() == [
        "| name | a\\|b | n |",
        "| --- | --- | --- |",
        "| x\\_y |  | 3 |",
        "| z w | \\* | 4 |",
    ]


@pytest.mark.parametrize(
    ("align", "rule"),
    [
        ("right", "| ---: | ---: | ---: |"),
        (["left", "center", "right"], "| --- | :---: | ---: |"),
    ],
)
def test_alignment(align, rule):
    assert markdown_table(["a", "b", "c"], [], align).splitlines() == ["| a | b | c |", rule]


@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), max_size=5))
def test_no_cell_breaks_the_table(rows):
    lines = markdown_table(["a", "b", "c"], rows).splitlines()
    assert len(lines) == 2 + len(rows)
    for line in lines[2:]:
        assert re.sub(r"\\.", "", line).count("|") == 4  # those that are not escaped


@given(TEXT)
def test_escaped_text_reads_the_same(text):
    assert re.sub(r"\\(.)", r"\1", escape(text)) == " ".join(text.split())
    assert not re.search(r"(?<!\\)[`*_\[\]<>|~&$]", re.sub(r"\\\\", "", escape(text)))


def test_what_does_not_match_the_columns_is_refused():
    with pytest.raises(ValueError, match="a row has 2 cells for 3 columns"):
        markdown_table(["a", "b", "c"], [["1", "2", "3"], ["4", "5"]])
    with pytest.raises(ValueError, match="2 alignments for 3 columns"):
        markdown_table(["a", "b", "c"], [], ["left", "right"])
