"""The main job from command line to report, interrupted and resumed, on generated and own data."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from cat_jax.data.sources import write_records
from cat_jax.models import CausalLM, attach_lora, load_adapter, load_pretrained
from cat_jax.tasks.stg import stg_records
from cat_jax.train.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("--data.train-records", "300", "--data.test-records", "40"),
    *("--train.steps", "12", "--train.batch-size", "16"),
    *("--train.eval-every", "6", "--train.save-every", "5", "--train.log-every", "1"),
]
METHODS = ("--methods", "baseline", "cat", "cat_published")


@pytest.fixture
def command(run_command):
    return partial(run_command, "train_stg")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, command_status):
    """The folder of a small run of all three methods with two seeds."""
    out = tmp_path_factory.mktemp("runs")
    assert command_status("train_stg", *SMALL, *METHODS, "--seeds", 0, 7, "--out", out) == 0
    return out / "stg_tiny"


@pytest.mark.slow
def test_report_json(finished):
    report = json.loads((finished / "report.json").read_text())
    assert list(report)[:3] == ["baseline", "cat", "cat_published"]
    for method in ("baseline", "cat", "cat_published"):
        scores, seeds = report[method], report[method]["seeds"]
        assert set(seeds) == {"0", "7"}
        for name in ("iid", "ood", "causal_mass", "changed_answers"):
            values = [seeds[seed][name] for seed in seeds]
            assert all(0 <= value <= 1 for value in values)
            np.testing.assert_allclose(scores[name], np.mean(values))
            np.testing.assert_allclose(scores["std"][name], np.std(values, ddof=1), atol=1e-12)
    assert report["config"]["train"]["steps"] == 12
    assert report["seconds"] > 0


@pytest.mark.slow
def test_report_page_shows_the_numbers_and_figures(finished):
    page = (finished / "report.md").read_text()
    report = json.loads((finished / "report.json").read_text())
    cat = next(line for line in page.splitlines() if line.startswith("| CAT |"))
    assert f"{100 * report['cat']['ood']:.1f} ± {100 * report['cat']['std']['ood']:.1f} |" in cat
    for figure in re.findall(r"!\[.*\]\((.*)\)", page):
        pixels = matplotlib.image.imread(finished / figure)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05  # not blank
    assert page.count("](figures/") == 2


@pytest.mark.slow
def test_the_trained_model_is_left_for_transformers(finished):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    logits, text = {}, next(stg_records(seed=1)).input
    for method in ("baseline", "cat"):
        folder = finished / "seed-7" / method / "model"
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids_BT = np.array([tokenizer(text).input_ids])
        assert tokenizer.decode(ids_BT[0]) == text
        config, params = load_pretrained(folder)
        ours, _ = CausalLM(config).apply({"params": params}, ids_BT)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            np.testing.assert_allclose(ours, theirs(torch.tensor(ids_BT)).logits, atol=1e-5)
        logits[method] = ours
    assert np.abs(logits["cat"] - logits["baseline"]).max() > 1e-3


@pytest.mark.slow
def test_methods_start_from_the_same_parameters_and_records(finished):
    first = {}
    for seed, method in itertools.product((0, 7), ("baseline", "cat", "cat_published")):
        lines = list(read_metrics(finished / f"seed-{seed}" / method / "metrics.jsonl"))
        losses = [line["next_token_loss"] for line in lines if line["kind"] == "train"]
        assert len(losses) == 12
        first.setdefault(seed, []).append(losses[0])
    for losses in first.values():
        np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    assert abs(first[0][0] - first[7][0]) > 1e-4


@pytest.mark.slow
def test_a_second_run_refuses_the_folder_and_resuming_repeats_the_report(finished, command):
    arguments = (*SMALL, *METHODS, "--seeds", 0, 7, "--out", finished.parent)
    before = json.loads((finished / "report.json").read_text())
    status, _, errors = command(*arguments)
    assert status == 2
    assert "already holds a run; continue it with --resume" in errors
    assert command(*arguments, "--resume")[0] == 0
    after = json.loads((finished / "report.json").read_text())
    assert after["cat"] == before["cat"]
    status, _, errors = command(*arguments, "--resume", "--train.steps", 13)
    assert status == 2
    assert "cannot be extended from 12 to 13 steps" in errors


@pytest.mark.slow
def test_packed_sequences_in_micro_batches(tmp_path, command):
    options = ("--train.pack", "--train.max-length", 64, "--train.accumulate", 2)
    assert command(*SMALL, *options, "--train.steps", 3, "--out", tmp_path)[0] == 0
    page = (tmp_path / "stg_tiny" / "report.md").read_text()
    found = re.search(r"300 records in (\d+) sequences of (\d+) tokens, (.*)% of them", page)
    sequences, length = int(found[1]), int(found[2])
    assert sequences == 100  # three records of 20 tokens in each
    assert 56 <= length <= 64
    assert float(found[3]) > 90


def test_packing_that_leaves_too_few_sequences(tmp_path, command):
    options = ("--train.pack", "--train.max-length", 2000, "--out", tmp_path)
    status, _, errors = command(*SMALL, *options)
    assert status == 2
    error = " ".join(errors.split())
    assert re.search(
        r"300 of 300 training records fit in 2000 tokens and are packed into \d sequences, fewer "
        r"than one batch of 16; add records, lower train.max_length or",
        error,
    )


@pytest.mark.slow
def test_the_best_parameters_are_handed_over_and_patience_ends_the_run(tmp_path, command):
    options = ("--train.best", "causal_mass", "--train.patience", 1, "--train.eval-every", 2)
    still = ("--optimizer.learning-rate", 1e-9)  # one evaluation is soon no better than before
    assert command(*SMALL, *options, *still, "--out", tmp_path)[0] == 0
    folder = tmp_path / "stg_tiny"
    for method in ("baseline", "cat"):
        lines = list(read_metrics(folder / "seed-0" / method / "metrics.jsonl"))
        points = [(line["step"], line["causal_mass"]) for line in lines if line["kind"] == "eval"]
        assert points.pop(0)[0] == 0  # before the first step: to compare with, never selected
        best = max(points, key=lambda point: point[1])[0]
        last = points[-1][0]
        assert last == best + 2 < 12
        page = (folder / "report.md").read_text()
        assert re.search(rf"parameters of step {best}, .*stopped early after step {last}", page)
        saved = {path.name for path in (folder / "seed-0" / method / "checkpoints").iterdir()}
        assert {str(best), str(last)} <= saved
    report = (folder / "report.json").read_text()
    assert command(*SMALL, *options, *still, "--out", tmp_path, "--resume")[0] == 0
    assert json.loads((folder / "report.json").read_text())["cat"] == json.loads(report)["cat"]


def broken_files(folder):
    """Files a user might hand over, and what the error must say of each."""
    good = list(itertools.islice(stg_records(seed=1), 20))
    write_records(folder / "good.jsonl", good)
    line = (folder / "good.jsonl").read_text().splitlines()[0]
    (folder / "torn.jsonl").write_text(f"{line}\n{line[:40]}\n")
    (folder / "field.jsonl").write_text(f'{line}\n{line}\n{{"input": "a"}}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "words.jsonl").write_text('{"input": "Tell me a joke. ", "target": "no"}\n')
    return {
        "missing.jsonl": "missing.jsonl",
        "torn.jsonl": r"torn.jsonl.*2",
        "field.jsonl": r"field.jsonl.*3.*target",
        "empty.jsonl": "empty.jsonl holds no records",
        "words.jsonl": "words that the tokenizer does not know",
    }


def test_bad_files_stop_before_anything_is_written(tmp_path, command):
    for name, message in broken_files(tmp_path).items():
        test_file = ("--data.test-files", tmp_path / name)
        status, _, error = command(*SMALL, *test_file, "--out", tmp_path / "runs")
        assert status == 2
        assert re.search(message, error), error
        assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.max-length", 12], "40 of 40 records are longer than 12 tokens"),
        (["--guidance.layers", 0, 2], "names layer 2, but the model has layers 0 to 1"),
        (
            ["--train.batch-size", 301],
            "300 of 300 training records fit in 256 tokens, fewer than one batch of 301",
        ),
        (
            ["--train.best", "odd"],
            "train.best is 'odd', but what is measured while training is iid",
        ),
        (["--resume"], "nothing to resume"),
        (["--data.test-records", 0], "--data.test-records must be at least 1"),
        (["--guidance.wieght", 1], "--guidance.weight"),
        (["--seeds", 1, 1], "seeds must be different, at least one, got 1, 1"),
        (["--methods", "baseline", "cta"], "no method named 'cta'; did you mean cat?"),
        (["--methods", "cat", "cat"], "methods must be different, at least one, got cat, cat"),
    ],
)
def test_bad_settings_are_named(tmp_path, command, arguments, message):
    status, _, errors = command(*SMALL, *arguments, "--out", tmp_path / "runs")
    assert status == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* was not written to its end and is removed")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_resumes_to_the_same_report(finished, tmp_path, command, signum):
    options = (*SMALL, "--out", str(tmp_path))
    words = [sys.executable, "-m", "experiments.train_stg", *options]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "stg_tiny/seed-0/cat/metrics.jsonl"
    deadline = time.monotonic() + 120
    while sum(1 for _ in read_metrics(log)) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    if signum == signal.SIGTERM:
        assert process.returncode == 128 + signum
        assert re.search(r"stopped; step \d+ is saved; add --resume to continue", error)
    assert not (tmp_path / "stg_tiny/report.json").exists()

    assert command(*options, "--resume")[0] == 0
    resumed = json.loads((tmp_path / "stg_tiny/report.json").read_text())
    undisturbed = json.loads((finished / "report.json").read_text())
    for method in ("baseline", "cat"):
        for name in ("iid", "ood", "causal_mass", "changed_answers"):
            assert resumed[method][name] == undisturbed[method]["seeds"]["0"][name]


@pytest.mark.slow
def test_cat_beats_plain_fine_tuning_out_of_distribution(tmp_path, command):
    arguments = ("--train.steps", 800, "--train.eval-every", 800, "--data.train-records", 20_000)
    assert command(*arguments, "--out", tmp_path)[0] == 0
    report = json.loads((tmp_path / "stg_tiny/report.json").read_text())
    # A quarter of the default run: the gap to IID is not closed yet, but it is there to see.
    assert min(report[method]["iid"] for method in ("baseline", "cat")) > 0.85
    assert report["baseline"]["ood"] < 0.75
    assert report["cat"]["ood"] > report["baseline"]["ood"] + 0.08
    assert report["cat"]["changed_answers"] < 0.5 * report["baseline"]["changed_answers"]


@pytest.mark.slow
def test_a_pretrained_model_trains_on_ones_own_files(shared, tmp_path, command):
    for split, count in (("train", 64), ("iid", 8), ("ood", 8)):
        records = itertools.islice(stg_records(split=split, seed=3, prefix=False), count)
        write_records(tmp_path / f"{split}.jsonl", records)
    files = [
        word
        for split in ("train", "iid", "ood")
        for word in (f"--data.{split}", tmp_path / f"{split}.jsonl")
    ]
    status, *_ = command(
        *("own_data", "--model.name", shared / "models/stories260K", *files),
        *("--model.dtype", "float32", "--optimizer.learning-rate", 1e-3),
        *("--train.steps", 16, "--train.batch-size", 8, "--train.log-every", 1),
        *("--train.eval-every", 16, "--out", tmp_path / "runs"),
    )
    assert status == 0
    for method in ("baseline", "cat"):
        lines = read_metrics(tmp_path / f"runs/own_data/seed-0/{method}/metrics.jsonl")
        losses = [line["next_token_loss"] for line in lines if line["kind"] == "train"]
        assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    report = json.loads((tmp_path / "runs/own_data/report.json").read_text())
    assert "changed_answers" not in report["cat"]


@pytest.mark.slow
def test_adapters_of_a_pretrained_model_train_and_leave_a_peft_folder(shared, tmp_path, command):
    stories = shared / "models/stories260K"
    arguments = (
        *("stg_llama_lora", "--model.name", stories, "--model.dtype", "float32"),
        *("--model.lora.rank", 8, "--model.lora.alpha", 16, "--optimizer.learning-rate", 5e-3),
        *("--data.train-records", 64, "--data.test-records", 8, "--train.batch-size", 8),
        *("--train.steps", 16, "--train.log-every", 1, "--train.eval-every", 16),
        *("--train.save-every", 8, "--out", tmp_path),
    )
    assert command(*arguments)[0] == 0
    config, params = load_pretrained(stories)
    tokens_BT = np.arange(3, 23)[None]
    plain, _ = CausalLM(config).apply({"params": params}, tokens_BT)
    for method in ("baseline", "cat"):
        folder = tmp_path / "stg_llama_lora/seed-0" / method
        lines = read_metrics(folder / "metrics.jsonl")
        losses = [line["next_token_loss"] for line in lines if line["kind"] == "train"]
        assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
        lora, adapters = load_adapter(folder / "adapter", config)
        assert (lora.rank, lora.alpha, lora.dropout) == (8, 16.0, 0.1)
        attached = attach_lora(params, adapters, lora)
        trained, _ = CausalLM(config).apply({"params": attached}, tokens_BT)
        assert np.abs(trained - plain).max() > 0.1
    report = (tmp_path / "stg_llama_lora/report.json").read_text()
    assert command(*arguments, "--resume")[0] == 0
    again = (tmp_path / "stg_llama_lora/report.json").read_text()
    assert json.loads(again)["cat"] == json.loads(report)["cat"]
    assert command(*arguments, "--resume", "--model.lora.rank", 0)[0] == 2
