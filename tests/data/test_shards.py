"""Prepared shards hold what alignment makes, and survive whatever interrupts their making."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.data.alignment import Example, align_records
from cat_jax.data.alignment_stats import AlignmentStats
from cat_jax.data.batches import stack_examples, training_batches
from cat_jax.data.bitset import mask_counts
from cat_jax.data.packing import pack_examples
from cat_jax.data.shards import ShardedExamples, is_prepared, prepare, prepare_data
from cat_jax.data.shards.serial import from_bytes, to_bytes
from cat_jax.errors import InputError
from cat_jax.testing import toy_dicts, toy_tokenizer

FIELDS = [field.name for field in dataclasses.fields(Example)]
COUNT, PER_SHARD = 41, 12


def equal(first, second):
    pairs = [(getattr(first, name), getattr(second, name)) for name in FIELDS]
    return all(
        a is b if a is None or b is None else a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in pairs
    )


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer()


@pytest.fixture(scope="module")
def records():
    """One of them too long."""
    return [*toy_dicts(count=COUNT), {"input": "x" * 50, "target": "y"}]


@pytest.fixture
def make(tmp_path, tokenizer, records):
    def make(source=records, out=tmp_path / "out", **options):
        settings = {"max_length": 30, "records_per_shard": PER_SHARD}
        return prepare_data(source, out, tokenizer, **settings | options)

    return make


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@given(
    length=st.integers(0, 40),
    words=st.integers(1, 3),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_an_example_survives_its_bytes(length, words, packed, seed):
    rng = np.random.default_rng(seed)
    q_bits, k_bits = rng.integers(0, 2**32, (2, length, words), np.uint32)
    example = Example(
        rng.integers(0, 200_000, length, np.int32),
        rng.random(length) < 0.5,
        q_bits,
        k_bits,
        *mask_counts(q_bits, k_bits),
    )
    if packed:
        ids = rng.integers(1, 9, (2, length)).astype(np.int32)
        example = dataclasses.replace(example, segment_ids=ids[0], positions=ids[1])
    data = to_bytes(example)
    assert equal(from_bytes(data), example)
    for wrong in (data[:-1], data + b"\0", data[:5]):
        with pytest.raises(ValueError, match=r"example|buffer"):
            from_bytes(wrong)


@pytest.mark.parametrize("pack", [False, True])
def test_shards_hold_what_alignment_makes(make, tmp_path, tokenizer, records, pack):
    manifest = make(pack=pack)
    shards = ShardedExamples(tmp_path / "out")
    expected, stats, read = [], AlignmentStats(), cat.read_records(records)
    for start in range(0, len(read), PER_SHARD):
        examples, some = align_records(read[start : start + PER_SHARD], tokenizer, max_length=30)
        expected += pack_examples(examples, length=30, seed=0) if pack else examples
        stats += some
    assert len(shards) == len(expected) == manifest.sequences
    assert all(map(equal, shards, expected))
    assert equal(shards[-1], expected[-1])
    assert all(map(equal, shards[3:20:5], expected[3:20:5]))
    with pytest.raises(IndexError):
        shards[len(expected)]
    assert manifest.stats == shards.manifest.stats == stats
    assert stats.too_long == 1
    lengths = [len(example.tokens) for example in expected]
    assert manifest.lengths == {n: lengths.count(n) for n in sorted(set(lengths))}
    assert manifest.shape == (max(lengths), 1)
    assert manifest.filled == pytest.approx(sum(lengths) / len(lengths) / max(lengths))
    assert [shard.name for shard in manifest.shards] == [
        f"shard-{n:05d}.array_record" for n in range(4)
    ]


def test_batches_of_shards_are_those_of_the_examples(make, tmp_path):
    make()
    shards = ShardedExamples(tmp_path / "out")
    batches = [
        itertools.islice(training_batches(examples, batch_size=7, seed=3), 9)
        for examples in (shards, list(shards))
    ]
    for mine, expected in zip(*batches, strict=True):
        for a, b in zip(mine, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert stack_examples(shards).tokens_BT.shape[0] == COUNT


def test_records_are_held_one_shard_at_a_time(make):
    """The source is read no further than the shard that is being written."""
    taken, seen = itertools.count(1), []

    def source():
        for item in toy_dicts(count=60):
            seen.append(next(taken))
            yield item

    make(source(), progress=lambda records: seen.append(-records))
    done = [-n for n in seen if n < 0]
    assert done == [12, 24, 36, 48, 60]
    for records in done:
        assert max(n for n in seen[: seen.index(-records)] if n > 0) == records


def test_the_same_data_gives_the_same_files(make, tmp_path):
    make(out=tmp_path / "one")
    make(out=tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


class Stopped(Exception):
    pass


def stop_at(monkeypatch, name, call):
    """Raise in the call of that number of a function of the module ``prepare``."""
    calls, function = itertools.count(1), getattr(prepare, name)

    def stopped(*args, **kwargs):
        if next(calls) == call:
            raise Stopped
        return function(*args, **kwargs)

    monkeypatch.setattr(prepare, name, stopped)


@pytest.mark.parametrize(
    ("name", "call"),
    [("write_bytes", 1), ("write_bytes", 3), ("write_text", 1), ("write_text", 3), ("finish", 1)],
)
def test_an_interrupted_preparation_continues(make, tmp_path, monkeypatch, name, call):
    make(out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, name, call)
        with pytest.raises(Stopped):
            make()
    assert not is_prepared(tmp_path / "out")
    made = []
    write = prepare.write_shard
    monkeypatch.setattr(prepare, "write_shard", lambda *args: made.append(args[1]) or write(*args))
    make()
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    expected = {"write_bytes": 5 - call, "write_text": 6 - call if call > 1 else 4, "finish": 0}
    assert len(made) == expected[name]


@pytest.mark.parametrize("tear", ["cut", "changed", "gone", "description"])
def test_a_torn_shard_is_found_and_made_anew(make, tmp_path, monkeypatch, tear):
    make(out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, "finish", 1)
        with pytest.raises(Stopped):
            make()
    shard = tmp_path / "out" / "shard-00001.array_record"
    data = bytearray(shard.read_bytes())
    if tear == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif tear == "changed":
        data[100] ^= 1
        shard.write_bytes(data)
    elif tear == "gone":
        shard.unlink()
    else:
        shard.with_name(f"{shard.name}.json").write_text('{"name"')
    make()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_other_records_replace_what_was_prepared(make, tmp_path):
    make(toy_dicts(count=40))
    make(toy_dicts(count=20), out=tmp_path / "whole")
    make(toy_dicts(count=20))
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_source_that_cannot_be_read_costs_nothing(make, tmp_path):
    make()
    before = content(tmp_path / "out")
    with pytest.raises(InputError, match="cannot read"):
        make(str(tmp_path / "none.jsonl"))
    assert content(tmp_path / "out") == before


def conversation(words, answer="yes"):
    return {
        "messages": [
            {"role": "user", "content": words},
            {"role": "assistant", "content": answer},
        ]
    }


def test_conversations_with_template_options_are_other_records(make, tmp_path):
    rows = [conversation("hi"), conversation("ho")]
    first = make(rows)
    second = make(rows, template_options={"date": "2026-01-31"})
    assert first.shards[0].source != second.shards[0].source
    assert first.shards[0].sha256 == second.shards[0].sha256  # this template writes no date
    assert first.end_ids == second.end_ids != ()


def test_a_shard_whose_conversations_are_all_altered_is_empty(make, tmp_path, tokenizer):
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace(
        "message['content']", "message['content'] | replace('n', '')"
    )
    try:
        manifest = make([conversation("hi"), conversation("hi", "no")], records_per_shard=1)
        with pytest.raises(
            InputError, match=r"gives nothing to train on.*1 conversations are alter"
        ):
            make([conversation("hi", "no")], out=tmp_path / "other")
    finally:
        tokenizer.chat_template = template
    assert [shard.sequences for shard in manifest.shards] == [1, 0]
    assert len(list(ShardedExamples(tmp_path / "out"))) == 1
    assert manifest.stats.altered == 1


# Refusals


def test_folders_with_other_content_are_refused(make, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"file is a file; name a folder for the shards"):
        make(out=file)
    with pytest.raises(InputError, match="holds other files; choose a new folder"):
        make(out=tmp_path)
    assert file.read_text() == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_length": 31}, "max_length"),
        ({"pack": True, "seed": 1}, "pack, seed"),
        ({"records_per_shard": 13}, "records_per_shard"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_shards_made_otherwise_are_refused(make, tmp_path, monkeypatch, options, named, finished):
    if finished:
        make()
    else:
        with monkeypatch.context() as patch:
            stop_at(patch, "finish", 1)
            with pytest.raises(Stopped):
                make()
    before = content(tmp_path / "out")
    with pytest.raises(
        InputError, match=f"holds shards with another {named}; remove it, or choose"
    ):
        make(**options)
    assert content(tmp_path / "out") == before


def test_empty_sources_are_refused(make, tmp_path):
    with pytest.raises(InputError, match="the source holds no records; add at least one"):
        make([])
    with pytest.raises(InputError, match="gives nothing to train on: 1 records exceed 30 tokens"):
        make([{"input": "x" * 50, "target": "y"}], out=tmp_path / "long")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "long").exists()


def test_a_bad_record_is_named_and_what_is_prepared_is_kept(make, tmp_path, monkeypatch):
    rows = toy_dicts(count=30)
    with pytest.raises(InputError, match=r"record 28.*target"):
        make([*rows[:27], {"input": "a"}, *rows[27:]])
    assert not is_prepared(tmp_path / "out")
    made = []
    write = prepare.write_shard
    monkeypatch.setattr(prepare, "write_shard", lambda *args: made.append(args[1]) or write(*args))
    make(rows)
    assert made == ["shard-00002.array_record"]


def damage(folder, change):
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(version=1), "has version 1, this package reads 2; prepare the data"),
        (lambda m: m.pop("shards"), r"is damaged \('shards'\)"),
        (lambda m: m["shards"][0].pop("size"), "is damaged"),
        (lambda m: m["preparation"].update(more=1), "is damaged"),
    ],
)
def test_damaged_manifests_are_refused(make, tmp_path, change, match):
    make()
    damage(tmp_path / "out", change)
    with pytest.raises(InputError, match=match):
        ShardedExamples(tmp_path / "out")


def test_torn_shards_are_refused_when_they_are_opened(make, tmp_path):
    make()
    shard = tmp_path / "out" / "shard-00002.array_record"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"shard-00002\.array_record is missing or torn; prepare"):
        ShardedExamples(tmp_path / "out")
    shard.unlink()
    with pytest.raises(InputError, match="is missing or torn"):
        ShardedExamples(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        ShardedExamples(tmp_path / "out")


def test_changed_bytes_are_refused_when_they_are_read(make, tmp_path):
    make()
    shard = tmp_path / "out" / "shard-00000.array_record"
    data = bytearray(shard.read_bytes())
    places = [n for n, byte in enumerate(data) if byte]
    for n in places[len(places) // 3 : 2 * len(places) // 3]:
        data[n] ^= 255
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged|torn"):
        list(ShardedExamples(tmp_path / "out"))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_length": 14}, "of up to 15 tokens, more than train.max_length"),
        ({"match": "reference"}, "made with train.match offsets, not reference"),
        ({"pack": True}, "made with train.pack False, not True"),
    ],
)
def test_shards_of_other_settings_are_refused(make, tmp_path, tokenizer, settings, match):
    make()
    shards = ShardedExamples(tmp_path / "out")
    asked = {"max_length": 30, "match": "offsets", "pack": False}
    shards.check(tokenizer, **asked)
    with pytest.raises(InputError, match=match):
        shards.check(tokenizer, **asked | settings)


def test_shards_of_another_tokenizer_or_template_are_refused(make, tmp_path):
    make()
    shards = ShardedExamples(tmp_path / "out")
    asked = {"max_length": 30, "match": "offsets", "pack": False}
    other = toy_tokenizer()
    other.add_tokens(["risk"])
    with pytest.raises(InputError, match="are made with another tokenizer; prepare"):
        shards.check(other, **asked)
    other = toy_tokenizer()
    other.chat_template = "{{ messages }}"
    with pytest.raises(InputError, match="are made with another chat template"):
        shards.check(other, **asked)


def test_prepared_folders_are_no_records(make, tmp_path):
    make()
    assert is_prepared(tmp_path / "out")
    assert is_prepared(str(tmp_path / "out"))
    assert not is_prepared(tmp_path)
    assert not is_prepared([])
    assert not is_prepared("hub:a/b:train")
    with pytest.raises(InputError, match="holds prepared shards, which have no texts; train on"):
        cat.read_records(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert not is_prepared(tmp_path / "out")
