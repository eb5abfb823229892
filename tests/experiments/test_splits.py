import dataclasses
import json
from itertools import islice

import pytest
from experiments.splits import as_published, intervened, load_splits, records, spurious_spans

from cat_jax.config import GeneratedData, JsonlData
from cat_jax.data import stg, stg_h
from cat_jax.data.records import Annotation, Record, Span, write_jsonl
from cat_jax.errors import InputError

GAMES = {"stg": stg, "stg_h": stg_h}


def generated(game, **options):
    return GeneratedData(**{"game": game, "train_rows": 30, "test_rows": 12} | options)


@pytest.fixture(params=GAMES)
def game(request):
    return request.param


@pytest.fixture
def make_file(tmp_path):
    def make(name, word="a"):
        write_jsonl(tmp_path / name, [Record(f"Word: {word} Answer: ", word)])
        return str(tmp_path / name)

    return make


def test_generated_splits_are_the_streams_of_the_seed(game):
    splits = load_splits(generated(game), 3)
    generate = {"stg": stg.stg_records, "stg_h": stg_h.stg_h_records}[game]
    options = {"seed": 3, "granularity": "value", "effect": "target"}
    assert splits.train == list(islice(generate(split="train", **options), 30))
    assert list(splits.tests) == ["iid", "ood"]
    for split, rows in splits.tests.items():
        assert rows == list(islice(generate(split=split, **options), 12))


def test_train_iid_ood_and_seeds_share_no_row(game):
    both = [load_splits(generated(game), seed) for seed in (0, 1)]
    rows = [row.text for s in both for part in (s.train, *s.tests.values()) for row in part]
    assert len(set(rows)) == 2 * (30 + 12 + 12)


def test_twins_follow_their_cause_except_out_of_distribution():
    tests = load_splits(generated("stg", test_rows=200), 0).tests
    same = {}
    for name, rows in tests.items():
        parsed = [stg.parse_factors(row.text) for row in rows]
        same[name] = sum(f["Weight"] == f["Clothing size"] for f in parsed) / len(parsed)
    assert same["iid"] == 1.0
    # Independent and uniform on 1..10: one in ten.
    assert 0.02 < same["ood"] < 0.2


def test_options_reach_the_generator(game):
    rows = list(islice(records(generated(game, effect="answer", trace=True), "train", 0), 5))
    module = GAMES[game]
    for row in rows:
        assert len(row.important) == 1 + len(module.CAUSAL)
        assert row.important[0].effect.text == f"Answer: {row.target}"
    (row,) = islice(records(generated(game, granularity="span"), "train", 0), 1)
    names = {cause.text.split(": ")[0] for cause in row.important[0].causes}
    assert names == set(module.CAUSAL)


@pytest.mark.parametrize(
    ("game", "file"),
    [("stg", "STG/spurious_token_game_train3.jsonl"), ("stg_h", "STG_H/STG_H_train.jsonl")],
)
def test_as_published_annotates_like_the_published_files(shared, game, file):
    ours = generated(game, granularity="span" if game == "stg_h" else "value", trace=True)
    row = load_splits(as_published(ours), 0).train[0]
    (note,) = row.important
    lines = (shared / "data" / "cat_reference" / file).read_text().splitlines()
    ((effect, causes),) = json.loads(lines[0])["important"][0].items()
    assert note.effect.text.startswith("Answer: ") == effect.startswith("Answer: ")
    assert len(note.causes) == len(causes)
    assert all((": " in cause) == (game == "stg") for cause in causes)
    assert all((": " in cause.text) == (game == "stg") for cause in note.causes)


def test_as_published_keeps_the_texts_and_ones_own_annotation(game):
    data = generated(game, trace=True)
    ours, published = load_splits(data, 5).train, load_splits(as_published(data), 5).train
    assert [row.text for row in ours] == [row.text for row in published]
    assert all(a.important != b.important for a, b in zip(ours, published, strict=True))
    own = JsonlData("a", "b", "c")
    assert as_published(own) == own


def test_files_are_named_by_their_stems(make_file):
    files = {name: make_file(f"{name}.jsonl", name) for name in ("train", "iid_1", "x", "my.set")}
    data = JsonlData(files["train"], files["iid_1"], files["x"], (files["my.set"], files["train"]))
    splits = load_splits(data, 0)
    targets = {name: [row.target for row in rows] for name, rows in splits.tests.items()}
    assert [row.target for row in splits.train] == ["train"]
    assert list(targets.items()) == [
        ("iid", ["iid_1"]),
        ("ood", ["x"]),
        ("my.set", ["my.set"]),
        ("train", ["train"]),
    ]


def test_generated_data_take_test_files_too(make_file):
    splits = load_splits(generated("stg", test_files=(make_file("mine.jsonl"),)), 0)
    assert list(splits.tests) == ["iid", "ood", "mine"]


@pytest.mark.parametrize("names", [["ood.jsonl"], ["a.jsonl", "a.json"]])
def test_two_test_sets_of_one_name_are_refused(make_file, names):
    files = tuple(map(make_file, names))
    with pytest.raises(
        InputError, match=r"two test sets are named '(ood|a)'; rename .*" + names[-1]
    ):
        load_splits(generated("stg", test_files=files), 0)


@pytest.mark.parametrize(
    "name", ["causal_mass", "changed_answers", "seconds_per_step", "std", "seeds"]
)
def test_names_of_other_entries_of_the_report_are_refused(make_file, name):
    file = make_file(f"{name}.jsonl")
    with pytest.raises(InputError, match=f"'{name}' .* rename {file}"):
        load_splits(generated("stg", test_files=(file,)), 0)


@pytest.mark.parametrize("place", ["train", "iid", "ood", "test_files"])
def test_files_without_rows_or_missing_are_refused(make_file, tmp_path, place):
    data = JsonlData(*(make_file(f"{name}.jsonl") for name in ("train", "one", "two")))
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name, message in (("empty", "holds no records"), ("missing", "cannot read")):
        file = str(tmp_path / f"{name}.jsonl")
        value = (file,) if place == "test_files" else file
        with pytest.raises(InputError, match=message) as caught:
            load_splits(dataclasses.replace(data, **{place: value}), 0)
        assert file in str(caught.value)


def test_intervention_changes_spurious_values_alone(game):
    data, module = generated(game, trace=True), GAMES[game]
    rows = load_splits(data, 0).tests["iid"]
    after = intervened(data, rows, 0)
    changed = set()
    for row, new in zip(rows, after, strict=True):
        old_factors, new_factors = map(module.parse_factors, (row.text, new.text))
        assert list(old_factors) == list(new_factors)
        changed |= {name for name in old_factors if old_factors[name] != new_factors[name]}
        assert new.target == row.target
        assert [note.effect.text for note in new.important] == [
            note.effect.text for note in row.important
        ]
    assert changed == set(module.SPURIOUS)
    assert intervened(data, rows, 0) == after
    assert intervened(data, rows, 1) != after


def test_spurious_spans_are_names_with_values(game):
    data, module = generated(game), GAMES[game]
    for row in load_splits(data, 0).train:
        spans = spurious_spans(data, row)
        values = {name: module.parse_factors(row.text)[name] for name in module.SPURIOUS}
        found = {}
        for span in spans:
            assert row.text.startswith(span.text, span.start)
            name, value = span.text.split(": ")
            found[name] = float(value)
        assert found == values


def test_nobody_knows_the_spurious_words_of_ones_own_rows():
    note = Annotation(Span("b"), (Span("Weight: 1"),))
    row = Record("Weight: 1, Clothing size: 1, Hormones: 0, Yellow fingers: 3 ", "b", (note,))
    assert spurious_spans(JsonlData("a", "b", "c"), row) == []
    assert len(spurious_spans(generated("stg"), row)) == 3
