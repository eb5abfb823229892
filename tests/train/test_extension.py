"""A finished run goes on to more steps, where those so far are the longer run's own."""

import dataclasses
import shutil

import pytest
from small_runs import LORA, RECORDS, TRAIN, assert_same, run

from cat_jax.config import Guidance, Optimizer
from cat_jax.errors import InputError
from cat_jax.models import load_pretrained
from cat_jax.testing import raise_at
from cat_jax.train.extension import is_longer
from cat_jax.train.workdir import run_settings

CONSTANT = Optimizer(learning_rate=0.05, schedule="constant", warmup_steps=2)
LONGER = dataclasses.replace(TRAIN, steps=8)
OPTIONS = {"optimizer": CONSTANT, "validation": RECORDS[:5]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and the longer one that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(workdir=folder, **OPTIONS)
    return folder, run(train=LONGER, **OPTIONS)


@pytest.fixture
def finished(runs, tmp_path):
    return shutil.copytree(runs[0], tmp_path / "run")


def steps(result, kind):
    return [line["step"] for line in result.history if line["kind"] == kind]


def test_the_longer_run_has_the_same_bits(finished, runs):
    result = run(workdir=finished, train=LONGER, **OPTIONS)
    assert_same(result.params, runs[1].params)
    assert set(steps(result, "train")) == {2, 4, 5, 6, 8}  # 5 was the last once
    assert_same(load_pretrained(finished / "model")[1], result.params)
    assert (finished / "model-5").is_dir()
    again = run(workdir=finished, train=LONGER, **OPTIONS)
    assert_same(again.params, result.params)


def test_it_may_be_stopped_anywhere(finished, runs):
    with pytest.raises(KeyError):
        run(
            workdir=finished,
            train=LONGER,
            callbacks=[raise_at(6, KeyError(), "train")],
            **OPTIONS,
        )
    assert not (finished / "model").exists()
    assert_same(run(workdir=finished, train=LONGER, **OPTIONS).params, runs[1].params)


def test_after_one_that_began_nothing_the_first_length_is_still_there(finished, runs):
    (finished / "model").rename(finished / "model-5")  # and the process died
    result = run(workdir=finished, **OPTIONS)
    assert result.history[-1]["step"] == 5
    assert (finished / "model").is_dir()


def test_epochs_are_extended_as_steps_are(tmp_path):
    """Of 23 records in batches of 7 an epoch has 3 steps."""
    two, three = (dataclasses.replace(TRAIN, epochs=epochs) for epochs in (2, 3))
    first = run(workdir=tmp_path / "run", train=two, **OPTIONS)
    assert first.history[-1]["step"] == 6
    result = run(workdir=tmp_path / "run", train=three, **OPTIONS)
    assert steps(result, "train")[-1] == 9
    assert [x["epoch"] for x in result.history if x["kind"] == "train"][-1] == 3.0
    assert_same(result.params, run(train=dataclasses.replace(TRAIN, steps=9), **OPTIONS).params)


def test_adapters_are_set_aside_too(tmp_path):
    options = {"workdir": tmp_path / "run", "lora": LORA, **OPTIONS}
    run(**options)
    result = run(train=LONGER, **options)
    assert {"adapter", "adapter-5"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert_same(result.params, run(train=LONGER, **options | {"workdir": None}).params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": Optimizer()}, "learning rate has ended .optimizer.schedule is cosine"),
        (
            {"optimizer": Optimizer(schedule="constant")},
            "warm-up is a share of the steps .give optimizer.warmup_steps",
        ),
        ({"guidance": Guidance(schedule="linear")}, "guidance has ended .* is linear"),
        ({"guidance": Guidance(schedule="cosine")}, "guidance has ended .* is cosine"),
    ],
)
def test_a_run_whose_steps_depend_on_their_number_is_not(tmp_path, changes, message):
    options = {**OPTIONS, "workdir": tmp_path / "run", **changes}
    run(**options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=rf"cannot be extended from 5 to 8 steps, .*{message}"):
        run(train=LONGER, **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"train": dataclasses.replace(TRAIN, steps=4)},
        {"train": dataclasses.replace(LONGER, batch_size=5)},
        {"train": dataclasses.replace(TRAIN, epochs=9)},
        {"train": LONGER, "seed": 1},
    ],
    ids=["shorter", "also other batches", "epochs for steps", "another seed"],
)
def test_other_settings_are_refused(finished, changes):
    with pytest.raises(InputError, match="was made with other settings"):
        run(workdir=finished, **OPTIONS | changes)


def test_without_a_change_nothing_is_longer():
    old, more = (
        run_settings(None, guidance=None, optimizer=CONSTANT, train=train, seed=0)
        for train in (TRAIN, LONGER)
    )
    assert is_longer(old, more)
    assert not is_longer(old, old)
    assert not is_longer(more, old)


def test_a_setting_that_the_older_run_did_not_know_is_none():
    model = {"name": "a", "lora": {"rank": 3}}
    old = {"model": model, "guidance": None, "train": {"steps": 5}}
    more = {"model": {**model, "frozen_dtype": None}, "guidance": None, "train": {"steps": 8}}
    assert is_longer(old, more)
    more["model"]["frozen_dtype"] = "int8"
    assert not is_longer(old, more)
