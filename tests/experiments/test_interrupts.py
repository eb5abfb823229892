"""Ctrl-C outside of training says what the output folder holds."""

import dataclasses
import importlib
import itertools
import sys

import pytest

from cat_jax.config import RunConfig, Scratch, Training
from cat_jax.data.sources import write_records
from cat_jax.tasks import files as own_files
from cat_jax.tasks.stg import stg_records
from experiments import compare, finetune
from experiments.command_line import exit_status

COMMANDS = {"finetune": finetune, "compare": compare}


@pytest.fixture
def config(add_config, tmp_path):
    records = list(itertools.islice(stg_records(seed=3, prefix=False), 24))
    write_records(tmp_path / "train.jsonl", records)
    train = str(tmp_path / "train.jsonl")
    config = RunConfig(
        name="one",
        model=Scratch(width=16, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
        data=own_files(train=train, iid=train),
        train=Training(steps=2, batch_size=8, save_every=1),
        out=str(tmp_path / "runs"),
    )
    add_config(config)
    return config


@pytest.fixture
def pressing(monkeypatch, config):
    """Runs a command in which Ctrl-C is pressed where a function is called; returns its status."""

    def command(name, place, *arguments):
        def press(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(sys, "argv", [name, config.name, *map(str, arguments)])
        if place is None:
            return exit_status(COMMANDS[name].main)
        module, _, function = place.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(importlib.import_module(module), function, press)
            return exit_status(COMMANDS[name].main)

    return command


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("finetune", "experiments.finetune.output_folder"),
        ("finetune", "cat_jax.train.fit.setup_training"),
        ("finetune", "cat_jax.train.run.make_train_step"),
        ("compare", "cat_jax.compare.compare.setup_comparison"),
    ],
)
def test_before_anything_is_written(pressing, tmp_path, capsys, name, place):
    assert pressing(name, place) == 130
    assert capsys.readouterr().err == "stopped; nothing was written\n"
    assert not (tmp_path / "runs").exists()


def test_before_the_first_checkpoint(pressing, tmp_path, capsys):
    assert pressing("finetune", "cat_jax.train.run._open_checkpoints") == 130
    said = "stopped; no step was saved yet; add --resume to continue\n"
    assert capsys.readouterr().err == said
    assert pressing("finetune", None, "--resume") == 0


def test_after_training(pressing, tmp_path, capsys):
    assert pressing("finetune", "cat_jax.train.run._export") == 130
    assert capsys.readouterr().err == "stopped; step 2 is saved; add --resume to continue\n"
    assert not (tmp_path / "runs/one/run.lock").exists()
    # Another run in the same folder is not begun.
    assert pressing("finetune", "experiments.finetune.output_folder") == 130
    assert capsys.readouterr().err == "stopped; nothing was written\n"


def test_between_the_runs_of_a_comparison(pressing, tmp_path, capsys):
    place = "cat_jax.compare.run_method.evaluate_test_sets"
    assert pressing("compare", place, "--methods", "baseline") == 130
    said = "stopped; step 2 of seed-0/baseline is saved; add --resume to continue\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["[red]", "[bold]a[/]", "a<b>&"])
def test_markup_in_a_name_is_text(config, add_config, tmp_path, monkeypatch, capsys, name):
    add_config(dataclasses.replace(config, name="two"))
    monkeypatch.setattr(sys, "argv", ["finetune", "two", "--name", name])
    if "/" in name:
        assert exit_status(finetune.main) == 2
        assert f"is {name!r}, a path" in capsys.readouterr().err
        return
    assert exit_status(finetune.main) == 0
    said = capsys.readouterr()
    assert f"{name} " in said.out + said.err
    assert f"trained: {tmp_path / 'runs' / name / 'model'}\n" in said.out
    monkeypatch.setattr(sys, "argv", ["finetune", "two", "--name", name])
    assert exit_status(finetune.main) == 2
    assert f"{name} already holds a run" in capsys.readouterr().err
