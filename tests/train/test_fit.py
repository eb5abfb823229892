"""``fit``: what it takes, what it gives, what it writes, and that it can be continued."""

import dataclasses
import json

import numpy as np
import pytest
from small_runs import LORA, RECORDS, SCRATCH, TRAIN, assert_differ, assert_same, copied, run

from cat_jax.data.alignment import align_records
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.models import load_pretrained
from cat_jax.testing import raise_at, toy_dicts, toy_model, toy_records
from cat_jax.train.throughput import TIMINGS


def without_times(history):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in history]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def points(history):
    return [(line["kind"], line["step"]) for line in history]


@pytest.fixture(scope="module")
def undisturbed():
    return run(validation=RECORDS[:5])


def test_nothing_is_written_without_a_workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(train=dataclasses.replace(TRAIN, best="next_token_loss"), validation=RECORDS[:3])
    assert list(tmp_path.iterdir()) == []


def test_history_of_validation_and_evaluators(undisturbed):
    calls = []

    def count(result):
        calls.append(copied(result.params["embed"]))
        return {"calls": len(calls)}

    toy, seen = toy_model(), []
    result = run(toy, validation=RECORDS[:5], evaluators=[count], callbacks=[seen.append])
    assert points(result.history) == [
        ("eval", 0),
        ("train", 2),
        ("eval", 2),
        ("train", 4),
        ("eval", 4),
        ("train", 5),
        ("eval", 5),
    ]
    assert seen == result.history
    evaluated = [line for line in result.history if line["kind"] == "eval"]
    assert [line["calls"] for line in evaluated] == [1, 2, 3, 4]
    assert all(np.isfinite(line["next_token_loss"]) for line in evaluated)
    assert {"causal_mass", "guidance_loss", "perplexity"} < evaluated[0].keys()
    assert_same(calls[0], toy.params["embed"])
    assert_same(calls[-1], result.params["embed"])
    assert_differ(calls[0], calls[1])
    # Who watches changes nothing.
    assert_same(result.params, undisturbed.params)


def test_a_callback_cannot_change_the_history():
    result = run(callbacks=[dict.clear])
    assert points(result.history) == [("train", 2), ("train", 4), ("train", 5)]


def test_history_of_few_steps_is_not_empty():
    result = run(train=dataclasses.replace(TRAIN, steps=3, log_every=20, eval_every=20))
    assert points(result.history) == [("train", 3)]
    assert result.summary()["steps"] == 3
    assert "validation" not in result.summary()


def test_records_dicts_files_and_examples_are_the_same(tmp_path, undisturbed):
    write_records(tmp_path / "records.jsonl", RECORDS)
    examples, _ = align_records(RECORDS, toy_model().tokenizer, max_length=19)
    forms = [toy_dicts(count=23), tmp_path / "records.jsonl", examples, iter(RECORDS)]
    for records in forms:
        result = run(records=records)
        assert_same(result.params, undisturbed.params)
        assert (result.stats.records, result.stats.records_without_mask) == (23, 0)


def test_data_that_cannot_be_trained_on(tmp_path):
    examples, _ = align_records(RECORDS, toy_model().tokenizer, max_length=19)
    bare = [dataclasses.replace(record, important=()) for record in RECORDS]
    cases = [
        ({"records": [*examples, *RECORDS]}, "records and examples are mixed"),
        (
            {"records": RECORDS[:6]},
            "6 of 6 training records fit in 19 tokens, fewer than one batch",
        ),
        ({"records": bare}, "no training record is annotated"),
        ({"model": SCRATCH, "records": examples}, "makes its tokenizer from records"),
        ({"model": SCRATCH, "lora": LORA}, "adapters need a pretrained model"),
        ({"validation": [{"text": "x" * 20}]}, "none of 1 validation records fits in 19 tokens"),
        ({"train": dataclasses.replace(TRAIN, best="f1")}, "train.best is 'f1', but"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            run(**options, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "step"), [("eval", 0), ("train", 2), ("eval", 4), ("eval", 5)])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, undisturbed, kind, step):
    error = KeyError("from a callback")
    options = {"validation": RECORDS[:5], "workdir": tmp_path / "run"}
    with pytest.raises(KeyError) as caught:
        run(**options, callbacks=[raise_at(step, error, kind)])
    assert caught.value is error
    assert not (tmp_path / "run" / "model").exists()
    result = run(**options)
    assert_same(result.params, undisturbed.params)
    assert without_times(result.history) == without_times(undisturbed.history)
    assert result.summary()["validation"] == undisturbed.summary()["validation"]


def test_without_a_workdir_a_callbacks_exception_is_raised_as_it_is():
    error = ZeroDivisionError("from a callback")
    with pytest.raises(ZeroDivisionError) as caught:
        run(callbacks=[raise_at(2, error)])
    assert caught.value is error


def test_time_goes_on_counting(tmp_path):
    with pytest.raises(KeyError):
        run(workdir=tmp_path, callbacks=[raise_at(5, KeyError())])
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    before = {line["step"]: line["elapsed_seconds"] for line in lines}
    # As if the first part had taken long: saved after step 4.
    text = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text.replace(str(before[4]), "1000.5"))
    result = run(workdir=tmp_path)
    last = result.history[-1]
    assert (last["step"], last["elapsed_seconds"] > 1000.5) == (5, True)
    assert last["elapsed_seconds"] < 1000.5 + 300
    assert result.summary()["seconds"] == round(last["elapsed_seconds"], 1)


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("used") / "run"
    return workdir, run(workdir=workdir, validation=RECORDS[:5])


def test_what_a_workdir_holds(used):
    workdir, result = used
    expected = {"config.json", "data.json", "environment.json", "metrics.jsonl", "tensorboard"}
    assert {path.name for path in workdir.iterdir()} == expected | {"checkpoints", "model"}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    config, params = load_pretrained(workdir / "model")
    assert_same(params, result.params)
    assert config == result.model.config


def test_a_finished_run_is_returned_as_it_was(used):
    workdir, finished = used
    result = run(workdir=workdir, validation=RECORDS[:5])
    assert_same(result.params, finished.params)
    assert result.history == finished.history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": dataclasses.replace(TRAIN, steps=4)}, r"other settings \(train.steps: 5 there"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"guidance": None}, "guidance"),
        ({"provenance": {"source": "b"}}, "source: None there, 'b' now"),
        ({"model": toy_model(width=20)}, "model.in_memory.width: 16 there, 20 now"),
        (
            {"records": toy_records(count=23, seed=1)},
            "training data .record 1 is the first with other tokens",
        ),
        ({"records": toy_records(count=24)}, "training data .24 records instead of 23;"),
        ({"resume": False}, "already holds a run"),
    ],
)
def test_another_run_does_not_take_the_workdir(used, change, message):
    workdir, _ = used
    before = contents(workdir)
    with pytest.raises(InputError, match=message) as caught:
        run(workdir=workdir, **change)
    assert "\n" not in str(caught.value)
    assert contents(workdir) == before


@pytest.mark.parametrize("kept", ["in memory", "in a workdir"])
def test_the_best_parameters_are_returned(tmp_path, kept, undisturbed):
    scores, params = iter([9.0, 1.0, 5.0, 2.0]), []

    def score(result):
        params.append(copied(result.params))
        return {"score": next(scores)}

    workdir = tmp_path / "run" if kept == "in a workdir" else None
    train = dataclasses.replace(TRAIN, best="score")
    result = run(train=train, evaluators=[score], workdir=workdir)
    assert len(params) == 4
    assert_same(result.params, params[2])
    assert_differ(result.params, params[3])
    assert_same(params[3], undisturbed.params)
    assert result.summary()["chosen"] == "parameters of step 4, the best score (5)"


def test_the_best_parameters_are_those_of_a_run_that_stopped_there():
    """Patience ends the second run right after its best evaluation and one more."""

    def scored(*scores):
        values = iter(scores)
        return [lambda result: {"score": next(values)}]

    train = dataclasses.replace(TRAIN, best="score")
    long = run(train=train, evaluators=scored(0, 3, 2, 1))
    short = run(train=dataclasses.replace(train, patience=1), evaluators=scored(0, 3, 2))
    assert points(short.history)[-1] == ("eval", 4)
    assert_same(long.params, short.params)
