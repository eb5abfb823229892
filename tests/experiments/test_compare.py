"""A comparison on one's own files, from command line to report."""

import dataclasses
import json
import sys
from functools import partial

import pytest

from cat_jax import tasks
from cat_jax.config import AttentionDropout, Guidance, RunConfig, Scratch, Training
from cat_jax.data.sources import write_records
from cat_jax.testing import toy_records


@pytest.fixture
def files(tmp_path, add_config):
    """Own files, and a configuration of a tiny model from scratch; options that name both."""
    sizes = {"train": 40, "validation": 9, "iid": 7, "ood": 6, "[odd] name": 5}
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in sizes}
    for seed, (name, count) in enumerate(sizes.items()):
        split = name if name in ("train", "iid") else "ood"
        write_records(paths[name], toy_records(split, count, seed=seed))
    extra = paths.pop("[odd] name")
    add_config(
        RunConfig(
            name="own_toy",
            model=Scratch(width=16, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
            data=tasks.files(train="none.jsonl"),
            guidance=Guidance(weight=2.0),
            train=Training(steps=4, batch_size=8, log_every=1, eval_every=2, max_length=32),
            out=str(tmp_path / "runs"),
        )
    )
    options = [word for name, path in paths.items() for word in (f"--data.{name}", path)]
    return ["own_toy", *options, "--data.test-files", extra]


@pytest.fixture
def command(run_command):
    return partial(run_command, "compare")


def test_a_regularizer_is_that_of_a_method(files, add_config, command):
    config = sys.modules["configs.own_toy"].CONFIG
    config = dataclasses.replace(config, name="with_one", regularizer=AttentionDropout())
    add_config(config)
    status, _, said = command("with_one", *files[1:])
    assert status == 2
    assert "regularizer is that of a method in a comparison" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_own_files_from_command_line_to_report(files, tmp_path, command):
    status, said, _ = command(*files)
    assert status == 0
    folder = tmp_path / "runs" / "own_toy"
    report = json.loads((folder / "report.json").read_text())
    assert list(report) == ["baseline", "cat", "intervals", "seconds", "config", "machine"]
    for method in ("baseline", "cat"):
        assert {"iid", "ood", "[odd] name", "causal_mass"} <= report[method].keys()
        assert "changed_answers" not in report[method]
        assert (folder / "seed-0" / method / "model" / "model.safetensors").is_file()
        lines = (folder / "seed-0" / method / "metrics.jsonl").read_text().splitlines()
        points = [line for line in map(json.loads, lines) if line["kind"] == "eval"]
        assert [point["step"] for point in points] == [0, 2, 4]
        assert all({"iid", "ood", "causal_mass", "perplexity"} <= p.keys() for p in points)
    assert "IID %" in said
    assert "[odd] name %" in said
    assert f"report: {folder / 'report.md'}" in said
    page = (folder / "report.md").read_text()
    assert page.count("](figures/") == 2
    assert "warning" not in page
    settings = json.loads((folder / "config.json").read_text())
    assert settings["name"] == "own_toy"
    assert settings["data"]["train"] == str(tmp_path / "train.jsonl")
    assert (settings["methods"], settings["seeds"]) == (["baseline", "cat"], [0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.iid", "no.jsonl"], "cannot read no.jsonl"),
        (["--train.best", "odd"], "measured while training is iid, ood, next_token_loss"),
        (["--train.max-length", 5], "longer than 5 tokens; shorten them, or raise max_length"),
        (["--guidance.layers", 1], "names layer 1, but the model has layers 0 to 0"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    files, tmp_path, command, options, message
):
    status, _, errors = command(*files, *options)
    assert status == 2
    assert message in errors
    assert not (tmp_path / "runs").exists()


def test_a_configuration_without_guidance_is_no_comparison(tmp_path, command):
    write_records(tmp_path / "a.jsonl", toy_records("train", 20))
    data = ("--data.train", tmp_path / "a.jsonl", "--data.iid", tmp_path / "a.jsonl")
    options = ("--model.name", "none", "--out", tmp_path / "runs")
    status, _, errors = command("sft", *data, *options)
    assert status == 2
    assert not (tmp_path / "runs").exists()
    assert "method cat needs guidance" in errors
