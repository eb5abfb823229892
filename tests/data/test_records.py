from unicodedata import normalize

import pytest

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError


@pytest.mark.parametrize(
    "important",
    [
        '[{"9": ["1", "x"]}, {"1": ["x"]}]',
        '{"9": ["1", "x"], "1": ["x"]}',
        '[{"9": ["1", "x"], "1": "x"}]',
        '[{"9": [1, "x"]}, {"effect": 1, "causes": ["x"]}]',
        '[{"effect": "9", "causes": ["1", "x"]}, {"1": ["x"]}]',
    ],
)
def test_published_shapes_of_important(read, important):
    (record,) = read('{"input": "x 1 ", "target": 9, "more": null, "important": ' + important + "}")
    causes = Annotation(Span("9"), (Span("1"), Span("x")))
    assert record == Record("x 1 ", "9", (causes, Annotation(Span("1"), (Span("x"),))))


def test_causes_that_are_effects_in_turn(read):
    (record,) = read(
        {"input": "a b c ", "target": "d", "important": [{"d": {"b": ["a"], "c": []}}]}
    )
    assert record.important == (
        Annotation(Span("d"), (Span("b"), Span("c"))),
        Annotation(Span("b"), (Span("a"),)),
    )


def test_an_effect_named_effect_is_no_long_form(read):
    (record,) = read({"input": "", "target": "x", "important": {"effect": ["a"], "causes": ["b"]}})
    assert [note.effect.text for note in record.important] == ["effect", "causes"]


@pytest.mark.parametrize("number", ["8", "84.0", "0.10", "-3", "12345678901234567890", "1e3"])
def test_numbers_stay_as_the_file_spells_them(read, number):
    (record,) = read('{"input": "x ", "target": ' + number + "}")
    assert record.target == number


def test_blank_lines_and_missing_annotations(read):
    records = read(
        {"input": "a", "target": "b"}, "", {"input": "c", "target": "d", "important": None}
    )
    assert records == [Record("a", "b"), Record("c", "d")]


def note(effect, *causes):
    return Annotation(effect, causes)


GOOD = {"input": "x 8 ", "target": "y"}


@pytest.mark.parametrize("span", [{"text": "8", "start": 2}, {"text": 8, "start": None}, "8", 8])
def test_one_cause_needs_no_list(read, span):
    (record,) = read(GOOD | {"important": {"y": span}})
    start = span["start"] if isinstance(span, dict) else None
    assert record.important == (Annotation(Span("y"), (Span("8", start),)),)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "one JSON object"),
        ({"target": "y"}, "field 'input': missing; add it"),
        ({"input": "x"}, "field 'target': missing; add it"),
        ({"input": ["x"], "target": "y"}, "field 'input': must be text or a number, not [\"x\"]"),
        ({"input": "x", "target": None}, "field 'target': missing; add it"),
        ({"input": "x", "target": True}, "field 'target': must be text or a number, not true"),
        ('{"input": "x", "target": NaN}', "field 'target': must be text or a number, not NaN"),
        (GOOD | {"important": "y"}, "'important': expected {effect: "),
        (GOOD | {"important": ["y"]}, "'important': expected {effect: "),
        (GOOD | {"important": [{"y": True}]}, "'important': causes must be a list, not true"),
        (GOOD | {"important": {"effect": "y", "causes": None}}, "causes must be a list, not null"),
        (GOOD | {"important": {"effect": None, "causes": ["8"]}}, "a span must be text"),
        (GOOD | {"important": [{"y": [None]}]}, "'important': a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "end": 3}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"start": 2}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": "2"}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": 2.5}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": -3}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": 3}]}]}, "'8' do not stand at"),
        (
            GOOD | {"important": {"effect": {"text": "y", "start": 5}, "causes": ["8"]}},
            "'y' do not",
        ),
        (GOOD | {"important": [{"": ["8"]}]}, "'important': an effect is empty; give its words"),
        (GOOD | {"important": [{" \u3000": ["8"]}]}, "'important': an effect is empty"),
        (GOOD | {"important": [{"y": []}]}, "'important': the effect 'y' has no causes; give one"),
        (GOOD | {"important": [{"y": {}}]}, "'important': the effect 'y' has no causes"),
        (GOOD | {"important": {"effect": "y", "causes": []}}, "the effect 'y' has no causes"),
        (GOOD | {"important": [{"y": ["8", ""]}]}, "'important': a cause of 'y' is empty; give"),
        (GOOD | {"important": [{"y": {"text": " ", "start": 1}}]}, "a cause of 'y' is empty"),
        (GOOD | {"important": [{"y": ["8"]}, {}]}, "'important': expected {effect: [causes]}, not"),
    ],
)
def test_bad_lines_name_file_line_and_field(read, line, says):
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3") as error:
        read(GOOD, "", line)
    assert says in str(error.value)


def test_spans_must_stand_where_they_say():
    Record("x 8 ", "y", (note(Span("y", 4), Span("8", 2), Span("nowhere")),))
    for start in (-1, 1, 5):
        with pytest.raises(InputError, match=f"'8' do not stand at character {start}"):
            Record("x 8 ", "8", (note(Span("8", start), Span("x")),))


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_canonically_equal_words_stand_where_they_say(forms):
    text, words = map(normalize, forms, ("né à Ấp 한국 ", "à Ấp 한국"))
    start = text.index(" ") + 1
    Record(text, "y", (note(Span("y"), Span(words, start)),))
    for wrong in (start - 1, start + 1):
        with pytest.raises(InputError, match=f"do not stand at character {wrong}"):
            Record(text, "y", (note(Span("y"), Span(words, wrong)),))


def test_no_annotation_is_an_empty_list_or_nothing(read):
    records = read(GOOD | {"important": []}, GOOD | {"important": None}, GOOD)
    assert records == 3 * [Record("x 8 ", "y")]


def test_records_know_their_line_which_does_not_tell_them_apart(read):
    (record,) = read("", GOOD)
    assert record.where.endswith("rows.jsonl, line 2")
    assert record == Record("x 8 ", "y")
    assert hash(record) == hash(Record("x 8 ", "y"))
