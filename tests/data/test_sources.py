"""Reading of records from files and dicts, and writing them back."""

import json
from collections import UserDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.data.sources import read_records, write_records
from cat_jax.errors import InputError

TEXT = st.text('aA8 .%"\\\n\r\t\u2028é😀')
FULL = TEXT.filter(bool)


@st.composite
def spans(draw, text, message=None):
    """Words of a text, which may not be spaces alone."""
    inside = draw(st.sampled_from([n for n, letter in enumerate(text) if letter.strip()]))
    start = draw(st.integers(0, inside))
    words = text[start : draw(st.integers(inside + 1, len(text)))]
    return Span(words, draw(st.sampled_from([start, None])), message)


@st.composite
def annotations(draw, effects, causes):
    """Up to three, of the given spans."""
    notes = st.builds(Annotation, effects, st.lists(causes, min_size=1, max_size=3).map(tuple))
    return tuple(draw(st.lists(notes, max_size=3)))


@st.composite
def records(draw):
    prompt, target = draw(TEXT), draw(FULL)
    found = spans(prompt + target)
    important = draw(annotations(found, found)) if (prompt + target).strip() else ()
    return Record(prompt, target, important)


@st.composite
def conversations(draw):
    contents = draw(st.lists(FULL, min_size=2, max_size=4))
    messages = []
    for number, content in enumerate(contents):
        of = draw(st.integers(0, number))
        role, important = ("user", "assistant", "system")[number % 3], ()
        if content.strip() and contents[of].strip():
            causes = st.one_of(spans(content), spans(contents[of], of))
            important = draw(annotations(spans(content), causes))
        messages.append(Message(role, content, important))
    return Conversation(tuple(messages))


@settings(deadline=None, max_examples=80)
@given(
    items=st.lists(records(), min_size=1, max_size=4)
    | st.lists(conversations(), min_size=1, max_size=4)
)
def test_what_is_written_reads_back(tmp_path_factory, items):
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    write_records(path, items)
    assert read_records(path) == items
    dicts = [json.loads(line) for line in path.read_text().splitlines()]
    assert read_records(dicts) == items


NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
WORDS = NUMBER | TEXT
NAMED = st.dictionaries(FULL, st.none() | WORDS | st.lists(WORDS, max_size=3), max_size=3)
IMPORTANT = st.none() | NAMED | st.lists(NAMED, max_size=3)
PAIRS = st.fixed_dictionaries(
    {"input": WORDS, "target": NUMBER | FULL},
    optional={"important": IMPORTANT, "messages": st.none(), "text": st.none(), "id": NUMBER},
)
TEXTS = st.fixed_dictionaries({"text": NUMBER | FULL}, optional={"important": IMPORTANT})


def result(source):
    """What is read, or what is wrong with it."""
    try:
        return read_records(source)
    except InputError as error:
        return str(error).split(": ", 1)[1]


@settings(deadline=None, max_examples=150)
@given(dicts=st.lists(PAIRS, min_size=1, max_size=4) | st.lists(TEXTS, min_size=1, max_size=4))
def test_dicts_read_as_the_file_of_their_json(tmp_path_factory, dicts):
    path = tmp_path_factory.getbasetemp() / "dicts.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in dicts))
    expected = result(path)
    assert result(dicts) == expected
    assert result(iter(map(UserDict, dicts))) == expected
    if isinstance(expected, list):
        for item, record in zip(dicts, expected, strict=True):
            assert record.target == str(item.get("target", item.get("text")))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (84.0, "84.0"),
        (-3, "-3"),
        (10**400, str(10**400)),
        (np.int64(7), "7"),
        (np.float32(0.5), "0.5"),
    ],
)
def test_numbers_of_dicts_are_text(target, text):
    assert read_records([{"input": 8, "target": target}]) == [Record("8", text)]


GOOD = {"input": "x 8 ", "target": "y"}


def caused(**span):
    return GOOD | {"important": [{"y": [{"text": "8"} | span]}]}


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("x", r"record 3: expected a dict such as .*, not str"),
        (GOOD | {"target": True}, "record 3, field 'target': must be text or a number, not true"),
        (GOOD | {"target": float("nan")}, "record 3, field 'target': must be .* not NaN"),
        (GOOD | {"target": b"y"}, r"record 3, field 'target': must be .* not \"b'y'\""),
        (GOOD | {"target": None}, "record 3, field 'target': missing"),
        (GOOD | {"important": "y"}, "record 3, field 'important': expected "),
        (caused(start=True), "record 3, field 'important': a span must be text"),
        (caused(start=-1), "record 3, field 'important': a span must be text"),
        (caused(start=2.0), "record 3, field 'important': a span must be text"),
        (caused(start="2"), "record 3, field 'important': a span must be text"),
        (caused(start=1), "record 3, field 'important': the words '8' do not stand at char"),
        (caused(message=False), "record 3, field 'important': a span must be text"),
        ({"messages": [{"role": "user"}]}, "record 3, message 0, field 'content': missing"),
    ],
)
def test_bad_dicts_name_record_and_field(item, says):
    with pytest.raises(InputError, match=f"^{says}"):
        read_records([GOOD, GOOD, item])


def test_objects_are_taken_as_they_are():
    record = Record("a", "")
    conversation = Conversation((Message("user", "a"), Message("assistant", "b")), "here")
    items = read_records(item for item in (record, GOOD, conversation))
    assert items[0] is record
    assert items[2] is conversation
    assert items[1] == Record("x 8 ", "y")


def filled(values):
    """Fill the fields that a struct lacks with None, as Arrow tables do, at every depth."""
    if all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        columns = {
            name: iter(filled([value[name] for value in values if name in value])) for name in names
        }
        return [{n: next(columns[n]) if n in value else None for n in names} for value in values]
    if all(isinstance(value, list) for value in values):
        flat = iter(filled([item for value in values for item in value]))
        return [[next(flat) for _ in value] for value in values]
    return values


SPARSE = {
    "input/target": [
        {
            "input": "x 8 ",
            "target": "y",
            "important": [{"y": [{"text": "8", "start": 2}]}, {"y": [{"text": "x"}]}],
        },
        {"input": "z ", "target": "w", "id": 3},
        {"input": "v 8", "target": "u", "important": [{"v": [{"text": "8"}]}]},
    ],
    "messages": [
        {
            "messages": [
                {"role": "user", "content": "Smoking: 8?"},
                {
                    "role": "assistant",
                    "content": "High",
                    "important": [
                        {
                            "effect": {"text": "High", "start": 0},
                            "causes": [{"text": "8", "start": 9, "message": 0}],
                        }
                    ],
                },
            ]
        },
        {"messages": [{"role": "user", "content": "8"}, {"role": "assistant", "content": "y"}]},
    ],
}
EXPECTED = {
    "input/target": [
        Record(
            "x 8 ",
            "y",
            (Annotation(Span("y"), (Span("8", 2),)), Annotation(Span("y"), (Span("x"),))),
        ),
        Record("z ", "w"),
        Record("v 8", "u", (Annotation(Span("v"), (Span("8"),)),)),
    ],
    "messages": [
        Conversation(
            (
                Message("user", "Smoking: 8?"),
                Message("assistant", "High", (Annotation(Span("High", 0), (Span("8", 9, 0),)),)),
            )
        ),
        Conversation((Message("user", "8"), Message("assistant", "y"))),
    ],
}


@pytest.mark.parametrize("name", SPARSE)
def test_filled_fields_are_absent(name):
    items = filled(SPARSE[name])
    assert items != SPARSE[name]
    assert read_records(SPARSE[name]) == read_records(items) == EXPECTED[name]


@pytest.mark.parametrize("name", SPARSE)
def test_a_dataset_reads_as_its_dicts(name):
    datasets = pytest.importorskip("datasets")
    assert read_records(datasets.Dataset.from_list(SPARSE[name])) == EXPECTED[name]


def test_the_published_form_is_written_where_it_says_all(tmp_path):
    path = tmp_path / "records.jsonl"
    short = Annotation(Span("Low"), (Span("1"), Span("2", 1)))
    long = Annotation(Span("Low", 2), (Span("1"),))
    said = Message(
        "assistant", "Low", (Annotation(Span("Low"), (Span("1", 0, 0), Span("2", None, 0))),)
    )
    write_records(path, [Record("12", "Low", (short, long)), Record("a", "b")])
    assert lines(path) == [
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
    write_records(path, [Conversation((Message("user", "12"), said))])
    causes = [{"text": "1", "start": 0, "message": 0}, {"text": "2", "message": 0}]
    assert lines(path) == [
        {
            "messages": [
                {"role": "user", "content": "12"},
                {"role": "assistant", "content": "Low", "important": [{"Low": causes}]},
            ]
        },
    ]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_of_two_formats_is_not_written(tmp_path):
    path = tmp_path / "records.jsonl"
    talk = Conversation((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(InputError, match="cannot be written to one file, which has one format"):
        write_records(path, [Record("a", "b"), talk])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [Record("a", "b")])

    def broken():
        yield Record("c", "d")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert read_records(path) == [Record("a", "b")]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"cannot write .*more\.jsonl: .*; check the folder"):
        write_records(path / "more.jsonl", [])  # its folder is a file


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "é"}\r\n', encoding="utf-8-sig")
    assert read_records(str(tmp_path / "rows.jsonl")) == [Record("", "é")]


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.jsonl"):
        read_records(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="holds no data file; name a file that ends in"):
        read_records(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"input": "é"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.jsonl is not UTF-8"):
        read_records(tmp_path / "latin.jsonl")


def test_no_records(read):
    with pytest.raises(InputError, match=r"rows\.jsonl holds no records"):
        read("", " ")
    with pytest.raises(InputError, match="the source holds no records"):
        read_records([])


# Records of each file.
PUBLISHED = {
    "ARC_E/sample": 30,
    "ASDiv/sample": 30,
    "GSM8k/gsm8k_test": 1319,
    "GSM8k/gsm8k_val_first400": 400,
    "MAWPS/mawps_ood": 2065,
    "MAWPS/mawps_test": 413,
    "MAWPS/mawps_train": 1239,
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
    incomplete = files.pop("MAWPS/mawps_train_gpt4o")
    assert {name: len(read_records(path)) for name, path in files.items()} == PUBLISHED
    with pytest.raises(InputError, match=r"line 387, field 'important': the effect '30 dogs' has"):
        read_records(incomplete)
