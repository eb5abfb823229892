"""What is left of a run: moved, finished, or with parts that are gone."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest
from small_runs import RECORDS, TRAIN, assert_same, run

from cat_jax.errors import InputError
from cat_jax.testing import raise_at
from cat_jax.train.throughput import TIMINGS

VALIDATION = RECORDS[:5]
FINISHED, UNFINISHED = "finished", "unfinished"


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def without_times(history):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in history]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was stopped at step 4, the same run finished, and its result."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"validation": VALIDATION, "provenance": {"name": "one"}}
    with pytest.raises(KeyError):
        run(workdir=folder / UNFINISHED, callbacks=[raise_at(5, KeyError(), "train")], **options)
    result = run(workdir=folder / FINISHED, **options)
    return folder, result


@pytest.fixture
def left(runs, tmp_path):
    """Copies what is left of a run."""

    def copy(kind):
        return Path(shutil.copytree(runs[0] / kind, tmp_path / kind))

    return copy


def resume(workdir, **options):
    provenance = {"name": workdir.name}
    return run(**{"workdir": workdir, "validation": VALIDATION, "provenance": provenance} | options)


def test_a_renamed_or_copied_run_goes_on_to_the_same_bits(runs, left):
    copied = left(UNFINISHED)
    before = contents(copied)
    renamed = copied.rename(copied.with_name("renamed"))
    assert len(contents(renamed)) == len(before)
    result = resume(renamed)
    assert_same(result.params, runs[1].params)
    assert without_times(result.history) == without_times(runs[1].history)


@pytest.mark.parametrize("best", [None, "next_token_loss"])
def test_a_finished_run_is_given_back_and_nothing_changes(tmp_path, caplog, best):
    options = {"train": dataclasses.replace(TRAIN, best=best), "workdir": tmp_path / "run"}
    finished = resume(**options)
    before, seen = contents(tmp_path), []
    caplog.clear()
    with caplog.at_level(logging.INFO, "cat_jax"):
        again = resume(**options, callbacks=[seen.append], evaluators=[])
    assert caplog.messages[0] == f"{tmp_path / 'run'} is a finished run; nothing is trained"
    assert_same(again.params, finished.params)
    assert again.summary() == finished.summary()
    assert seen == []
    assert contents(tmp_path) == before


def damage(workdir, what):
    """Remove or cut parts of a run."""
    for name in what:
        path = workdir / name.removeprefix("-")
        if path.is_dir():
            shutil.rmtree(path)
        elif name.startswith("-"):  # the last line but its end
            path.write_bytes(path.read_bytes()[:-9])
        else:
            path.unlink()


GONE = {
    "checkpoints of a finished run": (FINISHED, ["checkpoints"], "holds a trained model, but"),
    "checkpoints of a run": (UNFINISHED, ["checkpoints"], "holds metrics up to step 5, but"),
    "weights": (FINISHED, ["model/model.safetensors"], "model has no weights, or not all"),
    "metrics of a finished run": (FINISHED, ["metrics.jsonl"], "there is a checkpoint of step 5"),
    "metrics of a run": (UNFINISHED, ["metrics.jsonl"], "there is a checkpoint of step 4"),
    "settings": (UNFINISHED, ["config.json"], r"holds no run \(config.json is missing\)"),
}


@pytest.mark.parametrize("case", GONE)
def test_what_is_gone_is_named_and_nothing_starts_from_the_first_step(left, case):
    kind, what, message = GONE[case]
    workdir = left(kind)
    damage(workdir, what)
    before = contents(workdir)
    with pytest.raises(InputError, match=message) as caught:
        resume(workdir)
    assert "\n" not in str(caught.value)
    assert contents(workdir) == before


def test_a_lost_shard_of_an_exported_model_is_missed(left):
    workdir = left(FINISHED)
    weights = workdir / "model/model.safetensors"
    weights.rename(weights.with_name("model-00001-of-00002.safetensors"))
    shards = '{"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}'
    index = weights.with_name("model.safetensors.index.json")
    index.write_text(f'{{"weight_map": {shards}}}')
    with pytest.raises(InputError, match="model has no weights, or not all of them"):
        resume(workdir)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (FINISHED, []),
        (FINISHED, ["environment.json"]),
        (UNFINISHED, ["data.json"]),
        (UNFINISHED, ["-metrics.jsonl"]),
        (UNFINISHED, ["tensorboard"]),
        (UNFINISHED, ["checkpoints/4"]),
        (FINISHED, ["checkpoints/5"]),
    ],
    ids=str,
)
def test_what_can_be_made_again_is(runs, left, kind, what):
    workdir = left(kind)
    if kind == FINISHED:
        shutil.rmtree(workdir / "model")
    damage(workdir, what)
    result = resume(workdir)
    assert_same(result.params, runs[1].params)
    assert (workdir / "model/model.safetensors").is_file()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, runs):
    with pytest.raises(KeyError):
        run(workdir=tmp_path, validation=VALIDATION, callbacks=[raise_at(0, KeyError(), "eval")])
    result = run(workdir=tmp_path, validation=VALIDATION)
    assert_same(result.params, runs[1].params)
