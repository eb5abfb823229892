"""Training on prepared shards is training on the records that they were made of."""

import dataclasses
import json

import pytest
from small_runs import FAST, RECORDS, SCRATCH, TRAIN, assert_same, copied, run

from cat_jax.config import Guidance
from cat_jax.data.shards import ShardedExamples, prepare_data
from cat_jax.errors import InputError
from cat_jax.tasks.files import Files
from cat_jax.testing import toy_model, toy_records, toy_tokenizer
from cat_jax.train.fit import is_finished
from cat_jax.train.throughput import TIMINGS

SEED = 3


def shards(folder, records=RECORDS, **options):
    settings = {"max_length": 19, "records_per_shard": 9, "seed": SEED}
    prepare_data(records, folder, toy_tokenizer(), **settings | options)
    return folder


def without_times(history):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in history]


@pytest.mark.parametrize("pack", [False, True])
def test_the_run_is_that_on_the_records(tmp_path, pack):
    """Packed: of one shard, as packing crosses no shard."""
    train = dataclasses.replace(TRAIN, pack=pack, batch_size=3, max_length=31)
    expected = run(train=train, seed=SEED, validation=RECORDS[:5])
    options = {"max_length": 31, "pack": pack, "records_per_shard": 99 if pack else 9}
    folder = shards(tmp_path / "out", **options)
    result = run(records=folder, train=train, seed=SEED, validation=RECORDS[:5])
    assert_same(copied(result.params), copied(expected.params))
    assert without_times(result.history) == without_times(expected.history)
    assert result.stats == expected.stats
    same = run(records=ShardedExamples(folder), train=train, seed=SEED, validation=folder)
    assert_same(copied(same.params), copied(expected.params))


def test_a_run_continues_to_the_bit(tmp_path):
    folder = shards(tmp_path / "out")
    expected = run(records=folder)

    class Stopped(Exception):
        pass

    def stop(line):
        if line["step"] == 4:
            raise Stopped

    with pytest.raises(Stopped):
        run(records=folder, workdir=tmp_path / "run", callbacks=[stop])
    result = run(records=folder, workdir=tmp_path / "run")
    assert_same(copied(result.params), copied(expected.params))


def test_a_run_knows_its_shards(tmp_path):
    folder, workdir = shards(tmp_path / "out"), tmp_path / "run"
    run(records=folder, workdir=workdir)
    moved = folder.rename(tmp_path / "moved")
    made_again = shards(tmp_path / "again")
    options = {
        "train": TRAIN,
        "workdir": workdir,
        "optimizer": FAST,
        "guidance": Guidance(),
    }
    assert is_finished(toy_model(), moved, **options)
    assert is_finished(toy_model(), made_again, **options)
    other = shards(tmp_path / "other", [*RECORDS[:22], toy_records(count=60)[59]])
    with pytest.raises(InputError, match="one of the records 19 to 27 is the first with other tok"):
        run(records=other, workdir=workdir)
    fewer = shards(tmp_path / "fewer", RECORDS[:22])
    with pytest.raises(InputError, match="22 records instead of 23"):
        run(records=fewer, workdir=workdir)
    with pytest.raises(InputError, match="other training data"):
        run(workdir=workdir)


def refusals():
    change = dataclasses.replace
    yield {}, change(TRAIN, max_length=14), None, "of up to 15 tokens, more than train.max_length"
    yield {}, change(TRAIN, match="reference"), None, "made with train.match offsets"
    yield {}, change(TRAIN, unmatched="words.jsonl"), None, "train.unmatched lists words while"
    yield {}, change(TRAIN, batch_size=24), None, "holds 23 sequences, fewer than one batch of 24"
    yield {}, TRAIN, SCRATCH, "prepared shards have no texts to make a tokenizer of"
    bare = [dataclasses.replace(record, important=()) for record in RECORDS]
    yield {"records": bare}, TRAIN, None, "no training record is annotated"


@pytest.mark.parametrize(("made", "train", "model", "match"), list(refusals()))
def test_what_cannot_be_trained_is_refused(tmp_path, made, train, model, match):
    folder = shards(tmp_path / "out", **made)
    with pytest.raises(InputError, match=match):
        run(model, records=folder, train=train, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_of_files_takes_them(tmp_path):
    folder = str(shards(tmp_path / "out"))
    (tmp_path / "test.json").write_text(json.dumps([{"input": "a", "target": "b"}]))
    data = Files(train=folder, validation=str(tmp_path / "test.json")).training_data()
    assert isinstance(data, ShardedExamples)
    with pytest.raises(InputError, match=r"data\.validation_share: .* holds prepared shards"):
        Files(train=folder, validation_share=0.5).training_data()
    with pytest.raises(InputError, match=r"data\.columns: .* there is no other file to read"):
        Files(train=folder, columns={"input": "q"}).training_data()
    with pytest.raises(InputError, match="holds prepared shards, which have no texts"):
        Files(train=folder).records("train")
