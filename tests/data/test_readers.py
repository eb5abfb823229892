"""Every source gives the records of the same data as JSON lines, or a sentence."""

import bz2
import csv
import gzip
import io
import json
import sys
import types

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.data.readers import open_items, source_name
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError
from cat_jax.testing import toy_dicts, toy_model

DICTS = toy_dicts(count=9)
TALKS = [
    {
        "messages": [
            {"role": "user", "content": f'line\n{n}, with "quotes"'},
            {"role": "assistant", "content": "é", "important": [{"é": ["line"]}]},
        ]
    }
    for n in range(4)
]
ROWS = {"input/target": DICTS, "messages": TALKS, "text": [{"text": "a\n b,\t"}, {"text": "5.0"}]}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def separated(rows, delimiter):
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({n: x if isinstance(x, str) else json.dumps(x) for n, x in row.items()})
    return text.getvalue()


def write_parquet(path, rows):
    """Nested fields differ from row to row, as annotations do; JSON text stands for them."""
    plain = [{n: x if n != "important" else None for n, x in row.items()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), path, row_group_size=2)


def write_folder(path, rows):
    path.mkdir()
    (path / "b.jsonl").write_text(lines(rows[3:]))
    (path / "a.json").write_text(json.dumps(rows[:3]))
    (path / "README.md").write_text("no data")
    (path / ".hidden.jsonl").write_text("no data")
    (path / "more.jsonl").mkdir()


SOURCES = {
    "a.jsonl": lambda path, rows: path.write_text(lines(rows)),
    "a.ndjson": lambda path, rows: path.write_text("\ufeff" + lines(rows)),
    "a.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(lines(rows).encode())),
    "a.jsonl.zst": lambda path, rows: path.write_bytes(zstandard.compress(lines(rows).encode())),
    "a.json": lambda path, rows: path.write_text(json.dumps(rows, indent=2)),
    "b.json": lambda path, rows: path.write_text(json.dumps({"version": 1, "data": rows})),
    "a.csv": lambda path, rows: path.write_text(separated(rows, ","), newline=""),
    "a.tsv": lambda path, rows: path.write_text(separated(rows, "\t"), newline=""),
    "a.csv.gz": lambda path, rows: path.write_bytes(gzip.compress(separated(rows, ",").encode())),
    "folder": write_folder,
}


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_file_gives_the_same_records(tmp_path, name, format):
    rows = ROWS[format]
    SOURCES[name](tmp_path / name, rows)
    assert read_records(tmp_path / name) == read_records(rows)


@pytest.mark.parametrize("format", ROWS)
def test_parquet_and_saved_data_sets(tmp_path, format):
    rows = [{k: v for k, v in row.items() if k != "important"} for row in ROWS[format]]
    write_parquet(tmp_path / "a.parquet", rows)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    both = datasets.DatasetDict(train=datasets.Dataset.from_list(rows))
    both.save_to_disk(tmp_path / "both")
    expected = read_records(rows)
    assert read_records(tmp_path / "a.parquet") == expected
    assert read_records(tmp_path / "saved") == expected
    assert read_records(f"{tmp_path / 'both'}:train") == expected
    assert read_records(both["train"]) == expected


def test_annotations_in_parquet(tmp_path):
    """A column of structs has all their fields in every row, those of others as null."""
    table = pyarrow.Table.from_pylist(DICTS)
    assert len(table.schema.field("important").type.value_type) > 1
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet") == read_records(DICTS)


@pytest.mark.parametrize("name", [*SOURCES, "a.parquet"])
def test_every_kind_of_file_trains(tmp_path, name):
    (SOURCES | {"a.parquet": write_parquet})[name](tmp_path / name, DICTS)
    train = cat.Training(steps=2, batch_size=4, max_length=19)
    run = cat.fit(toy_model(), tmp_path / name, train=train)
    assert run.history[-1]["step"] == 2


@pytest.mark.parametrize("format", ROWS)
def test_every_format_trains(format):
    """Chat templates are those of the toy tokenizer."""
    rows = [row for row in ROWS[format] for _ in range(4)]
    train = cat.Training(steps=2, batch_size=4, max_length=200)
    assert cat.fit(toy_model(), rows, train=train).history[-1]["step"] == 2


def test_numbers_keep_their_spelling(tmp_path):
    for name, text in {
        "a.jsonl": '{"input": "2 *", "target": 84.0}',
        "a.json": '[{"input": "2 *", "target": 84.0}]',
        "a.csv": "input,target\n2 *,84.0\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert [record.target for record in read_records(tmp_path / name)] == ["84.0"]


def test_columns_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text(
        'q,a,causes,id,input\n5?,5,"[{""5"": [""5""]}]",7,\n1?,1,,8,x\n'
    )
    columns = {"input": "q", "target": "a", "important": "causes"}
    first, second = read_records(tmp_path / "a.csv", columns=columns)
    assert (first.input, first.target, len(first.important)) == ("5?", "5", 1)
    assert (second.input, second.important) == ("1?", ())


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_any_text_in_any_kind_of_file(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    rows = [{"input": a, "target": b} for a, b in rows]
    expected = read_records(rows)
    for name, write in SOURCES.items():
        if name != "folder":
            write(folder / name, rows)
            assert read_records(folder / name) == expected, name


def places(source):
    return [where for where, _ in open_items(source)]


def test_places(tmp_path):
    (tmp_path / "a.csv").write_text('input,target\n"1\n2",3\n\n4,5\n')
    assert places(tmp_path / "a.csv") == [f"{tmp_path}/a.csv, line {n}" for n in (3, 5)]
    write_parquet(tmp_path / "a.parquet", DICTS[:3])
    assert places(tmp_path / "a.parquet") == [f"{tmp_path}/a.parquet, row {n}" for n in (1, 2, 3)]
    datasets.Dataset.from_list(DICTS[:2]).save_to_disk(tmp_path / "saved")
    assert places(tmp_path / "saved") == [f"{tmp_path}/saved, row {n}" for n in (1, 2)]
    assert places(DICTS[:2]) == ["record 1", "record 2"]


def test_a_large_file_is_read_as_far_as_asked(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(DICTS) + "no JSON")
    items = open_items(tmp_path / "a.jsonl")
    assert [fields["input"] for _, fields in (next(items) for _ in DICTS)] == [
        fields["input"] for fields in DICTS
    ]
    with pytest.raises(InputError, match="line 10: not valid JSON"):
        next(items)


@pytest.mark.parametrize("size", [1, 100, 1 << 16, (1 << 16) + 1, 1 << 20])
def test_zst_in_frames_of_any_size(tmp_path, size):
    text = lines([{"text": "x" * size}, {"text": "y"}])
    frames = [zstandard.compress(part.encode()) for part in (text[:7], text[7:])]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert [record.target for record in read_records(tmp_path / "a.jsonl.zst")] == ["x" * size, "y"]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames)[:-1])
    with pytest.raises(InputError, match="no zst file, or is cut short"):
        read_records(tmp_path / "a.jsonl.zst")


def test_splits_must_be_named(tmp_path):
    one = datasets.Dataset.from_list(DICTS)
    both = datasets.DatasetDict(train=one, test=one)
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(InputError, match=r"holds the splits train, test; name one as .*both:train"):
        read_records(tmp_path / "both")
    with pytest.raises(InputError, match="holds the splits train, test"):
        read_records(f"{tmp_path}/both:tset")
    with pytest.raises(InputError, match="a mapping with train, test; give the records of one"):
        read_records(both)
    one.save_to_disk(tmp_path / "one")
    with pytest.raises(InputError, match="without splits; leave out :train"):
        read_records(f"{tmp_path}/one:train")


def test_damaged_saved_data_sets(tmp_path):
    datasets.Dataset.from_list(DICTS).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a saved data set"):
        read_records(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hub:a/b:train", (("a/b", None), {"split": "train", "revision": None})),
        ("hub:a/b@v1:c:train[:9]", None),
        ("hub:a/b@v1:c:test", (("a/b", "c"), {"split": "test", "revision": "v1"})),
    ],
)
def test_the_hub_is_asked_for(monkeypatch, name, asked):
    given = []

    def load(*args, **options):
        given.append((args, options))
        return datasets.Dataset.from_list(DICTS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    if asked is None:
        with pytest.raises(InputError, match="must be hub:REPO:SPLIT"):
            read_records(name)
        return
    assert read_records(name) == read_records(DICTS)
    assert given == [asked]


def test_without_a_network_one_sentence():
    with pytest.raises(InputError, match=r"hub:openai/gsm8k:main:train cannot be loaded \("):
        read_records("hub:openai/gsm8k:main:train")


def test_tensorflow_datasets_are_read_as_text(monkeypatch):
    """Its rows have bytes and arrays."""
    rows = [
        {"input": b"1 ", "target": "é".encode(), "important": np.array([], object)},
        {"input": "2 ", "target": np.int64(3), "important": [{"3": np.array([b"2"], object)}]},
    ]
    fake = types.ModuleType("tensorflow_datasets")
    fake.data_source = lambda name, split: rows if (name, split) == ("a/b", "train") else 1 / 0
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    first, second = read_records("tfds:a/b:train")
    assert (first.input, first.target, first.important) == ("1 ", "é", ())
    assert (second.target, second.important[0].causes[0].text) == ("3", "2")
    with pytest.raises(InputError, match="tfds:a/c:train cannot be read"):
        read_records("tfds:a/c:train")


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"pip install 'cat-jax\[tfds\]'"):
        read_records("tfds:a/b:train")


def test_a_kind_that_nothing_reads(tmp_path):
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(lines(DICTS).encode()))
    with pytest.raises(InputError, match=r"unknown kind of file; name a file that ends in \.jsonl"):
        read_records(tmp_path / "a.jsonl.bz2")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/ood.jsonl", "ood"),
        ("ood.csv.gz", "ood"),
        ("a.b/ood.v2.parquet", "ood.v2"),
        ("data/folder", "folder"),
        ("hub:openai/gsm8k:main:test", "gsm8k-main-test"),
        ("hub:a/b@v1:test", "b-test"),
        ("tfds:games/l:train[:9]", "games-l-train-9-"),
    ],
)
def test_names_of_sources(source, name):
    assert source_name(source) == name


def test_the_name_of_a_split(tmp_path):
    assert source_name(f"{tmp_path}:test") == f"{tmp_path.name}-test"
