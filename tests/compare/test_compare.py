"""Comparisons as a function: in memory, on conversations, over seeds, with every match."""

import dataclasses
import json
import os
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from cat_jax import tasks
from cat_jax.compare import Method, compare, save_report, summarize
from cat_jax.config import Guidance, Optimizer, Scratch, Training
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.testing import ToyTask, toy_model, toy_records
from cat_jax.train.setup import make_tokenizer

TRAIN = Training(steps=3, batch_size=8, log_every=1, eval_every=3, max_length=40)
TASK = ToyTask(train_records=24, test_records=7)
GUIDANCE = Guidance(weight=2.0)
FAST = Optimizer(learning_rate=1e-2)


def toy_comparison(model=None, task=TASK, **options):
    options = {"guidance": GUIDANCE, "train": TRAIN, "optimizer": FAST} | options
    return compare(model or toy_model(), task, **options)


class WordsTask(ToyTask):
    """The toy task with annotations that have no position, as the published data."""

    def make_records(self, split, seed):
        return [_without_starts(record) for record in super().make_records(split, seed)]

    @property
    def interventions(self):
        redraw = super().interventions["spurious"]
        return {"spurious": lambda record, rng: _without_starts(redraw(record, rng))}


def _without_starts(record):
    note = Annotation(Span(record.target), (Span(record.input[:3]),))
    return Record(record.input, record.target, (note,))


@pytest.fixture
def conversations(tmp_path):
    """JSONL files of conversations whose last answer is the digit of ``a``."""

    def write(name, split, count):
        path = tmp_path / name
        items = []
        for record in toy_records(split, count):
            cause = {"text": record.input[2], "start": 2, "message": 2}
            answer = {
                "role": "assistant",
                "content": record.target,
                "important": [{record.target: [cause]}],
            }
            turns = [("user", "Hi"), ("assistant", "Yes"), ("user", record.input)]
            messages = [{"role": role, "content": content} for role, content in turns]
            items.append({"messages": [*messages, answer]})
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        return str(path)

    return write


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = toy_model()
    before = jax.tree.map(np.array, model.params)
    found = toy_comparison(model)
    assert os.listdir(tmp_path) == []
    assert [(run.method.name, run.seed) for run in found.runs] == [("baseline", 0), ("cat", 0)]
    for run in found.runs:
        assert [x["step"] for x in run.history if x["kind"] == "train"] == [1, 2, 3]
        answered = run.evaluation["ood"]
        assert len(answered.answers) == 7
        wanted = [record.target for record in toy_records("ood", 7)]
        right = [a == b for a, b in zip(answered.answers, wanted, strict=True)]
        assert run.scores["ood"] == np.mean(right)
        assert {"iid", "causal_mass", "changed_answers", "seconds_per_step"} <= run.scores.keys()
    baseline, cat = ([x for x in run.history if x["kind"] == "train"] for run in found.runs)
    np.testing.assert_allclose(baseline[0]["loss"], cat[0]["next_token_loss"], rtol=1e-5)
    assert cat[0]["loss"] > cat[0]["next_token_loss"] + 0.1
    # The caller's parameters are as they were.
    jax.tree.map(np.testing.assert_array_equal, model.params, before)


def test_a_finished_comparison_is_not_trained_again_and_no_figure_changes(tmp_path, caplog):
    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    folder = tmp_path / "one"
    save_report(toy_comparison(workdir=folder), folder)
    before = contents()
    with caplog.at_level("INFO", "cat_jax"):
        again = toy_comparison(workdir=folder)
    finished = [text for text in caplog.messages if "is a finished run" in text]
    assert [text.split(" is ")[0] for text in finished] == [
        str(folder / "seed-0" / method) for method in ("baseline", "cat")
    ]
    save_report(again, folder)
    assert contents() == before
    report = json.loads((folder / "report.json").read_text())
    seconds = [max(line["elapsed_seconds"] for line in run.history) for run in again.runs]
    assert report["seconds"] == pytest.approx(sum(seconds), abs=0.1)


def test_test_records_of_the_training_data_are_counted_in_the_report(tmp_path):
    write_records(tmp_path / "train.jsonl", toy_records("train", 24))
    write_records(tmp_path / "iid.jsonl", [*toy_records("train", 3), *toy_records("iid", 5)])
    task = tasks.files(train=str(tmp_path / "train.jsonl"), iid=str(tmp_path / "iid.jsonl"))
    train = Training(steps=1, batch_size=8, max_length=19)
    found = toy_comparison(task=task, train=train, methods=["baseline"])
    inputs = {record.input for record in toy_records("train", 24)}
    expected = 3 + sum(record.input in inputs for record in toy_records("iid", 5))
    assert f"{expected} of 8 records of iid also stand in the training data" in " ".join(
        found.notes
    )


def test_the_last_message_of_a_conversation_is_the_answer(conversations):
    task = tasks.files(
        train=conversations("train.jsonl", "train", 24), iid=conversations("iid.jsonl", "iid", 5)
    )
    train = Training(steps=2, batch_size=8, log_every=1, eval_every=2, max_length=90)
    found = toy_comparison(task=task, train=train, methods=["cat"])
    (run,) = found.runs
    answered = run.evaluation["iid"]
    assert answered.targets == [record.target for record in toy_records("iid", 5)]
    assert 0 < run.scores["causal_mass"] < 1
    assert "changed_answers" not in run.scores
    assert "records without annotation 0/24" in " ".join(found.notes)


def test_test_files_are_evaluated_beside_or_instead_of_test_sets(tmp_path):
    write_records(tmp_path / "train.jsonl", toy_records("train", 24))
    write_records(tmp_path / "odd.jsonl", toy_records("ood", 5))
    extra = (str(tmp_path / "odd.jsonl"),)
    beside = ToyTask(train_records=24, test_records=7, test_files=extra)
    (run,) = toy_comparison(task=beside, methods=["cat"]).runs
    assert list(run.evaluation) == ["iid", "ood", "odd"]
    assert len(run.evaluation["odd"].answers) == 5
    alone = tasks.files(train=str(tmp_path / "train.jsonl"), test_files=extra)
    found = toy_comparison(task=alone, methods=["cat"])
    assert list(found.runs[0].evaluation) == ["odd"]
    page = save_report(found, tmp_path / "report").read_text()
    assert "odd %" in page


def test_a_validation_metric_may_select_the_parameters(tmp_path):
    for name, count in (("train", 24), ("iid", 5), ("validation", 9)):
        write_records(tmp_path / f"{name}.jsonl", toy_records("iid", count))
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "iid", "validation")}
    train = Training(
        steps=4, batch_size=8, log_every=1, eval_every=2, max_length=40, best="next_token_loss"
    )
    (run,) = toy_comparison(task=tasks.files(**paths), train=train, methods=["baseline"]).runs
    points = [x for x in run.history if x["kind"] == "eval" and x["step"] > 0]
    best = min(points, key=lambda point: point["next_token_loss"])
    assert run.selected is not None
    assert f"parameters of step {best['step']}, the best next_token_loss" in run.selected


def test_several_seeds_have_a_deviation_and_each_seed():
    found = toy_comparison(seeds=[0, 7])
    assert [run.seed for run in found.runs] == [0, 0, 7, 7]
    summary = summarize(found.runs)
    for method in ("baseline", "cat"):
        scores = summary[method]
        assert list(scores["seeds"]) == ["0", "7"]
        masses = [scores["seeds"][seed]["causal_mass"] for seed in ("0", "7")]
        np.testing.assert_allclose(scores["causal_mass"], np.mean(masses))
        np.testing.assert_allclose(scores["std"]["causal_mass"], np.std(masses, ddof=1))
        assert scores["std"]["causal_mass"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["baseline", "cta"]}, "no method named 'cta'; did you mean cat?"),
        ({"methods": ["zebra"]}, "no method named 'zebra'; there are baseline, cat, cat_published"),
        ({"methods": ["cat", "cat"]}, "methods must be different, at least one, got cat, cat"),
        ({"methods": []}, "methods must be different, at least one, got none"),
        ({"seeds": [3, 3]}, "seeds must be different, at least one, got 3, 3"),
        ({"seeds": []}, "seeds must be different, at least one, got none"),
        ({"guidance": None}, "method cat needs guidance"),
        ({"guidance": Guidance(layers=(0, 2))}, "guidance.layers names layer 2"),
        ({"train": Training(max_length=40)}, "24 of 24 training records fit in 40 tokens, fewer"),
        (
            {"train": Training(batch_size=8, best="next_token_loss")},
            "what is measured while training is iid, ood, causal_mass",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        toy_comparison(workdir=tmp_path / "run", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_test_file_must_not_have_the_name_of_a_score(tmp_path):
    write_records(tmp_path / "causal_mass.jsonl", toy_records("ood", 3))
    task = ToyTask(train_records=24, test_files=(str(tmp_path / "causal_mass.jsonl"),))
    with pytest.raises(InputError, match="'causal_mass' means something else in reports; rename"):
        toy_comparison(task=task)


def test_a_method_of_ones_own(tmp_path):
    seen = []
    half = Method(
        "half",
        "half the records",
        guidance=lambda guidance: guidance,
        records=lambda task, seed: seen.append(seed) or task.records("train", seed)[:12],
    )
    found = toy_comparison(methods=["baseline", half])
    assert seen == [0]
    assert "records without annotation 0/12" in " ".join(found.notes)
    assert [run.method.name for run in found.runs] == ["baseline", "half"]
    page = save_report(found, tmp_path).read_text()
    assert "| half the records |" in page


class FaultyTask(ToyTask):
    """The toy task with one annotation whose words stand nowhere, in each split."""

    def make_records(self, split, seed):
        first, *others = super().make_records(split, seed)
        note = Annotation(Span(first.target), (Span(f"not in {split}"),))
        return [Record(first.input, first.target, (note,), where=split), *others]


def test_unmatched_words_of_all_methods_and_test_sets_are_told(tmp_path, caplog):
    listed = tmp_path / "unmatched.jsonl"
    train = dataclasses.replace(TRAIN, unmatched=str(listed))
    last = Method(
        "last",
        "all but the first",
        guidance=lambda guidance: guidance,
        records=lambda task, seed: task.records("train", seed)[1:],
    )
    task = FaultyTask(train_records=24, test_records=7)
    with caplog.at_level("WARNING", "cat_jax"):
        toy_comparison(task=task, methods=["cat", last], train=train)
    (line,) = map(json.loads, listed.read_text().splitlines())
    assert line == {"where": "train", "role": "cause", "words": "not in train"}
    for split in task.test_splits:
        assert f"test set '{split}': 1 of 14 annotated effects and causes were not" in caplog.text


def test_records_matched_as_the_published_code_does_reach_the_report(tmp_path):
    train = Training(
        steps=3, batch_size=8, log_every=1, eval_every=3, max_length=40, match="reference"
    )
    found = toy_comparison(task=WordsTask(train_records=24, test_records=7), train=train)
    page = save_report(found, tmp_path).read_text()
    assert "warning" not in page
    assert (tmp_path / "figures" / "attention.png").is_file()
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["cat"]["causal_mass"] < 1
    example = found.example
    assert example is not None
    causal, spurious = example.marked()
    tokens = example.tokens()
    record = example.test.records[example.chosen()]
    assert "".join(np.array(tokens)[spurious]) == f"b={record.input[6]}"
    assert causal.any()
    assert len(causal) == len(spurious) == len(tokens)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in memory", "in a folder"])
def test_parameters_exist_once(tmp_path, where):
    """At most the parameters and two moments of the optimizer; nothing is left between runs."""
    model = Scratch(width=20, mlp_width=28, num_layers=1, num_heads=2, num_kv_heads=1)
    seeds = [0, 7]
    tokenizers = [make_tokenizer(model, TASK.records("train", seed)) for seed in seeds]
    shapes = {(len(tokenizer), 20) for tokenizer in tokenizers}

    def embeddings():
        return sum(array.shape in shapes for array in jax.live_arrays())

    first, lines = [], []

    @contextmanager
    def count(title, steps):
        first.append(embeddings())
        yield lambda line: lines.append((line["kind"], embeddings()))

    workdir = None if where == "in memory" else tmp_path / "run"
    found = toy_comparison(model, seeds=seeds, progress=count, workdir=workdir)
    assert first == [1, 1, 1, 1]  # each time the initial parameters of the run that begins
    assert len(lines) == 4 * (2 + 3)
    assert {number for kind, number in lines if kind == "train"} == {3}
    assert max(number for _, number in lines) == 3
    assert len(found.runs) == 4
    assert embeddings() == 0
