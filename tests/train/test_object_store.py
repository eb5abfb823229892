"""Shards, checkpoints, logs and the exported model may lie on ``gs://``."""

import dataclasses

import pytest
from object_store import stand_in
from small_runs import FAST, RECORDS, TRAIN, assert_same, copied, run

from cat_jax.data.shards import ShardedExamples, prepare_data
from cat_jax.models import load_pretrained
from cat_jax.testing import toy_tokenizer


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Where the objects of ``gs://bucket`` lie."""
    stand_in(tmp_path, monkeypatch)
    return tmp_path / "bucket"


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_shards_and_run_in_an_object_store(bucket):
    folder, workdir = "gs://bucket/data/shards", "gs://bucket/runs/one"
    options = {"max_length": 19, "records_per_shard": 9}
    prepare_data(RECORDS, folder, toy_tokenizer(), **options)
    made = {"manifest.json", *(f"shard-0000{n}.array_record" for n in range(3))}
    assert names(bucket / "data/shards") == made
    prepare_data(RECORDS, folder, toy_tokenizer(), **options)  # nothing to do
    assert len(ShardedExamples(folder)) == 23

    first = dataclasses.replace(TRAIN, steps=4)
    constant = {"optimizer": dataclasses.replace(FAST, schedule="constant")}  # may be extended
    expected = run(**constant)
    run(records=folder, train=first, workdir=workdir, **constant)
    assert {"checkpoints", "config.json", "metrics.jsonl", "tensorboard"} < names(
        bucket / "runs/one"
    )
    continued = run(records=folder, workdir=workdir, **constant)
    assert_same(copied(continued.params), copied(expected.params))
    again = run(records=folder, workdir=workdir, **constant)
    assert_same(copied(again.params), copied(expected.params))
    _, params = load_pretrained(str(bucket / "runs/one/model"))
    assert_same(copied(params["embed"]), copied(expected.params["embed"]))
