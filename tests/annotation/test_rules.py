"""Annotations without an assistant, on hand-made and on published answers."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.annotation import annotate_calculations, table_records
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError


def edges(record):
    """Effects and causes with their places."""
    return [
        ((note.effect.text, note.effect.start), [(c.text, c.start) for c in note.causes])
        for note in record.important
    ]


def places(text, *numbers):
    """Places of numbers, each the nth occurrence of its digits."""
    found = []
    for digits, nth in numbers:
        place = -1
        for _ in range(nth):
            place = text.index(digits, place + 1)
        found.append((digits, place))
    return found


PROBLEM = "A pen costs $1,200 and a cap 3.50. Ann buys 3 pens. Total? Answer: "


def test_a_result_depends_on_the_numbers_of_its_step_and_the_answer_on_the_result():
    answer = "3 * 1200 = <<3*1200=3600>>3,600 for pens, 3600 + 4 = $<<3600+4=3604>>3604.\n#### 3604"
    record = annotate_calculations(Record(PROBLEM, answer))
    text = record.text
    pen, three = text.index("1,200"), text.index("3 pens")
    first, second = text.index("3,600"), text.index(">>3604") + 2
    four, last = text.index("4 = $"), text.rindex("3604")
    assert edges(record) == [
        (("3,600", first), [("3", three), ("1,200", pen)]),
        (("3604", second), [("3,600", first), ("4", four)]),
        (("3604", last), [("3604", second)]),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("No calculation.\n#### 3", [("3", ["3"])]),
        ("Nothing at all", []),
        ("<<3*2=6>> pens", [("6", ["3"])]),
        ("<<50*.01=0.5>>0.5", []),
        ("<<3=3>>3.\n#### 3", [("3", ["3"]), ("3", ["3"])]),
        ("It is <<3*100=300>>300%.\n#### 300", [("300", ["3"]), ("300", ["300"])]),
        ("#### -3", [("3", ["3"])]),
        ("<<3+x=?>>", []),
        ("<<=>>", []),
    ],
)
def test_answers_of_other_forms(answer, expected):
    record = annotate_calculations(Record(PROBLEM, answer))
    assert [(e[0], [c[0] for c in causes]) for e, causes in edges(record)] == expected


@given(st.text("0123456789.,<>=*+# \n", max_size=60))
def test_whatever_an_answer_is_causes_stand_before_their_effect(answer):
    record = annotate_calculations(Record(PROBLEM, answer))
    for note in record.important:
        for cause in note.causes:
            assert cause.start + len(cause.text) <= note.effect.start


def test_annotations_that_were_there_are_replaced():
    old = Annotation(Span("6"), (Span("pen"),))
    record = Record(PROBLEM, "<<3*2=6>>6", (old,))
    assert old not in annotate_calculations(record).important


def test_published_answers_of_gsm8k(shared):
    """Of 400, 7 calculate with nothing that stands in digits before it."""
    file = shared / "data/cat_reference/GSM8k/gsm8k_val_first400.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    records = [annotate_calculations(Record(row["input"], row["target"])) for row in rows]
    assert len(records) == 400
    assert sum(not record.important for record in records) <= 7
    results = sum(row["target"].count("<<") for row in rows)
    assert sum(len(record.important) for record in records) > 0.95 * (results + 400)


ROWS = "Smoking,Shoe size,Age,risk\n8,8,41,high\n3,44,8,low\n"


def test_a_table_becomes_text_with_its_causes():
    rows = csv.DictReader(io.StringIO(ROWS))
    first, second = table_records(rows, target="risk", causes=["Age", "Smoking"], before="Facts. ")
    assert first.text == "Facts. Smoking: 8, Shoe size: 8, Age: 41. Answer: high"
    assert edges(first) == [
        (("high", len(first.input)), places(first.text, ("41", 1), ("8", 1))),
    ]
    assert edges(second)[0][1] == places(second.text, ("8", 1), ("3", 1))


def test_columns_and_wording_are_chosen():
    rows = list(csv.DictReader(io.StringIO(ROWS)))
    records = table_records(
        rows,
        target="risk",
        causes=["Age"],
        columns=["Age", "Smoking"],
        item="{value} is the {name}",
        separator="; ",
        after=" => ",
    )
    record = next(records)
    assert record.text == "41 is the Age; 8 is the Smoking => high"
    assert edges(record) == [(("high", len(record.input)), [("41", 0)])]


cells = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter(str.strip)


@given(values=st.lists(cells, min_size=3, max_size=3), names=st.permutations(["a", "b", "value"]))
def test_every_cause_stands_where_the_annotation_says(values, names):
    row = {**dict(zip(names, values, strict=True)), "y": "z"}
    (record,) = table_records([row], target="y", causes=names[:2])
    for name, cause in zip(names, record.important[0].causes, strict=False):
        assert record.text[cause.start : cause.start + len(cause.text)] == row[name]
        assert record.text[: cause.start].endswith(f"{name}: ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"causes": []}, "causes names no column"),
        ({"causes": ["risk"]}, "the column 'risk' is the answer"),
        ({"causes": ["Weight"]}, "row 1: there is no value in the column 'Weight'"),
        ({"columns": ["Age"]}, "row 1: there is no value in the column 'Smoking'"),
        ({"item": "{name}"}, "item must have {value} once"),
    ],
)
def test_tables_that_say_too_little_are_refused(options, says):
    rows = csv.DictReader(io.StringIO(ROWS))
    settings = {"target": "risk", "causes": ["Smoking"]} | options
    with pytest.raises(InputError, match=says):
        list(table_records(rows, **settings))


def test_an_empty_cell_is_refused_by_row():
    rows = csv.DictReader(io.StringIO(ROWS + ",3,4,low\n"))
    with pytest.raises(InputError, match="row 3: there is no value in the column 'Smoking'"):
        list(table_records(rows, target="risk", causes=["Smoking"]))
