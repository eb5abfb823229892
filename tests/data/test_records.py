import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.records import Annotation, Record, Span, read_jsonl, write_jsonl
from cat_jax.errors import InputError


@pytest.fixture
def read(tmp_path):
    def read_rows(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return read_jsonl(path)

    return read_rows


TEXT = st.text('aA8 .%"\\\n\r\t\u2028é😀')


@st.composite
def spans(draw, text):
    start = draw(st.integers(0, len(text)))
    words = text[start : draw(st.integers(start, len(text)))]
    return Span(words, draw(st.sampled_from([start, None])))


@st.composite
def records(draw):
    prompt, target = draw(TEXT), draw(TEXT)
    found = spans(prompt + target)
    notes = st.builds(Annotation, found, st.lists(found, max_size=3).map(tuple))
    return Record(prompt, target, tuple(draw(st.lists(notes, max_size=3))))


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(records(), max_size=4))
def test_what_is_written_reads_back(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows
    assert list(path.parent.glob("*.unfinished")) == []


def test_the_published_form_is_written_where_it_says_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    short = Annotation(Span("Low"), (Span("1"), Span("2", 1)))
    long = Annotation(Span("Low", 2), (Span("1"),))
    write_jsonl(path, [Record("12", "Low", (short, long)), Record("a", "b")])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "input": "12",
            "target": "Low",
            "important": [
                {"Low": ["1", {"text": "2", "start": 1}]},
                {"effect": {"text": "Low", "start": 2}, "causes": ["1"]},
            ],
        },
        {"input": "a", "target": "b"},
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [Record("a", "b")])

    def broken():
        yield Record("c", "d")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(path, broken())
    assert read_jsonl(path) == [Record("a", "b")]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="nowhere"):
        write_jsonl(tmp_path / "nowhere" / "rows.jsonl", [])


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
        Annotation(Span("c"), ()),
    )


def test_an_effect_named_effect_is_no_long_form(read):
    (record,) = read({"input": "", "target": "", "important": {"effect": ["a"], "causes": ["b"]}})
    assert [note.effect.text for note in record.important] == ["effect", "causes"]


@pytest.mark.parametrize("number", ["8", "84.0", "0.10", "-3", "12345678901234567890", "1e3"])
def test_numbers_stay_as_the_file_spells_them(read, number):
    (record,) = read('{"input": "x ", "target": ' + number + "}")
    assert record.target == number


def test_blank_lines_and_missing_annotations(read):
    rows = read({"input": "a", "target": "b"}, "", {"input": "c", "target": "d", "important": None})
    assert rows == [Record("a", "b"), Record("c", "d")]


GOOD = {"input": "x 8 ", "target": "y"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "one JSON object"),
        ({"target": "y"}, "'input' is missing"),
        ({"input": "x"}, "'target' is missing"),
        ({"input": ["x"], "target": "y"}, "'input' must be text"),
        ({"input": "x", "target": None}, "'target' must be text"),
        ({"input": "x", "target": True}, "'target' must be text"),
        (GOOD | {"important": "y"}, "'important': expected {effect: "),
        (GOOD | {"important": ["y"]}, "'important': expected {effect: "),
        (GOOD | {"important": [{"y": None}]}, "'important': causes must be a list, not null"),
        (GOOD | {"important": [{"y": [None]}]}, "'important': a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8"}]}]}, "'important': a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": "2"}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": 2.5}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": -3}]}]}, "a span must be text"),
        (GOOD | {"important": [{"y": [{"text": "8", "start": 3}]}]}, "'8' do not stand at"),
        (GOOD | {"important": {"effect": {"text": "y", "start": 5}, "causes": []}}, "'y' do not"),
    ],
)
def test_bad_lines_name_file_line_and_field(read, row, says):
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3") as error:
        read(GOOD, "", row)
    assert says in str(error.value)


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.jsonl"):
        read_jsonl(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_jsonl(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"input": "é"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.jsonl is not UTF-8"):
        read_jsonl(tmp_path / "latin.jsonl")


def test_spans_must_stand_where_they_say():
    Record("x 8 ", "y", (Annotation(Span("y", 4), (Span("8", 2), Span("nowhere"))),))
    for start in (-1, 1, 5):
        with pytest.raises(InputError, match=f"'8' do not stand at character {start}"):
            Record("x 8 ", "8", (Annotation(Span("8", start), ()),))


# Rows of each file.
PUBLISHED = {
    "ARC_E/sample": 30,
    "ASDiv/sample": 30,
    "GSM8k/gsm8k_test": 1319,
    "GSM8k/gsm8k_val_first400": 400,
    "MAWPS/mawps_ood": 2065,
    "MAWPS/mawps_test": 413,
    "MAWPS/mawps_train": 1239,
    "MAWPS/mawps_train_gpt4o": 1239,
    "MAWPS/mawps_val": 413,
    "STG/spurious_token_game_ood3_2": 400,
    "STG/spurious_token_game_test3": 400,
    "STG/spurious_token_game_train3": 1600,
    "STG/spurious_token_game_train3_M": 800,
    "STG/spurious_token_game_train3_S": 400,
    "STG_H/STG_H_iid_test": 1000,
    "STG_H/STG_H_ood_test": 1000,
    "STG_H/STG_H_train": 3000,
    "SVAMP/svamp_ood": 1000,
    "SVAMP/svamp_test": 200,
    "SVAMP/svamp_train": 600,
    "SVAMP/svamp_val": 200,
}


def test_all_published_files_parse(shared):
    folder = shared / "data/cat_reference"
    files = {
        str(path.relative_to(folder).with_suffix("")): path for path in folder.rglob("*.jsonl")
    }
    assert {name: len(read_jsonl(path)) for name, path in files.items()} == PUBLISHED
