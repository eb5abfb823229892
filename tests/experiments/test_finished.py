"""A run that is finished is shown again, and changed by nobody."""

import itertools
import json
import sys

import pytest

from cat_jax.config import RunConfig, Scratch, Training
from cat_jax.data.sources import write_records
from cat_jax.tasks import files as own_files
from cat_jax.tasks.stg import stg_records
from experiments import finetune
from experiments.command_line import exit_status


@pytest.fixture
def finished(add_config, tmp_path, monkeypatch, capsys):
    """A finished run, and the command line that resumes it under a name; what that says."""
    records = list(itertools.islice(stg_records(seed=3, prefix=False), 30))
    write_records(tmp_path / "train.jsonl", records)
    write_records(tmp_path / "test.jsonl", records[3:9])
    config = RunConfig(
        name="one",
        model=Scratch(width=16, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
        data=own_files(
            train=str(tmp_path / "train.jsonl"), test_files=(str(tmp_path / "test.jsonl"),)
        ),
        train=Training(steps=2, batch_size=8, save_every=1),
        out=str(tmp_path / "runs"),
    )
    add_config(config)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["finetune", "one", *arguments])
        assert exit_status(finetune.main) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return tmp_path / "runs" / "one", command("--seed", "0"), command


def contents(folder):
    return {str(x.relative_to(folder)): x.is_file() and x.read_bytes() for x in folder.rglob("*")}


def test_it_is_shown_at_once_and_no_file_changes(finished, monkeypatch):
    folder, said, command = finished
    before, lines = contents(folder.parent), said.splitlines()
    with monkeypatch.context() as patch:  # no model is read
        patch.setattr("cat_jax.train.fit.setup_training", lambda *x, **y: pytest.fail("a set-up"))
        again = command("--resume").splitlines()
    assert again[0] == f"{folder} is a finished run; nothing is trained or written"
    assert again[1:] == lines[-4:]
    assert contents(folder.parent) == before


def test_a_renamed_one_is_shown_where_it_is(finished):
    folder, said, command = finished
    renamed = folder.rename(folder.with_name("two"))
    before = contents(renamed)
    again = command("--resume", "--name", "two").splitlines()
    assert again[0].startswith(f"{renamed} is a finished run")
    assert again[1:-2] == said.splitlines()[-4:-2]
    assert again[-2] == f"trained: {renamed / 'model'}"
    assert again[-1].startswith(f"try it: python -m experiments.generate {renamed / 'model'} ")
    assert contents(renamed) == before


def test_a_summary_that_is_gone_is_the_same_again(finished):
    folder, _, command = finished
    before = contents(folder)
    (folder / "summary.json").unlink()
    command("--resume")
    assert json.loads(before["summary.json"])["test"].keys() >= {"test"}
    assert contents(folder) == before
