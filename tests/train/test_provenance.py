"""What a workdir notes about versions, devices and the commit of the code."""

import importlib.metadata
import json
import os
import platform
import subprocess

import jax
import numpy as np
import pytest
from etils import epath

import cat_jax
from cat_jax.train import provenance
from cat_jax.train.provenance import describe_environment, git_state, note_environment


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path)


def test_versions_and_devices(workdir):
    note_environment(workdir)
    note_environment(workdir)  # the same again adds nothing
    (noted,) = json.loads((workdir / "environment.json").read_text())
    versions = noted["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["cat_jax"] == cat_jax.__version__
    assert (versions["jax"], versions["numpy"]) == (jax.__version__, np.__version__)
    assert versions["orbax-checkpoint"] == importlib.metadata.version("orbax-checkpoint")
    assert None not in versions.values()
    assert noted["devices"]["count"] == len(jax.devices())
    assert noted["devices"]["platform"] == "cpu"
    assert noted["devices"]["cpu_cores"] == os.cpu_count()


def test_another_environment_is_added(workdir, monkeypatch):
    note_environment(workdir)
    monkeypatch.setattr(provenance, "PACKAGES", ("jax", "no-such-package"))
    note_environment(workdir)
    first, second = json.loads((workdir / "environment.json").read_text())
    assert first["versions"].keys() > {"flax"}
    assert second["versions"]["no-such-package"] is None


def test_the_environment_on_one_line():
    line = describe_environment()
    assert line.startswith(f"{len(jax.devices())} x cpu, {os.cpu_count()} CPU cores (")
    assert f"jax {jax.__version__}, " in line
    assert "\n" not in line


def test_the_commit_of_a_checkout(tmp_path):
    assert git_state(tmp_path) is None

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-qm", "first")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new.json").write_text("")  # outputs do not change the code
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path)["dirty"]
    (tmp_path / "inside").mkdir()
    assert git_state(tmp_path / "inside") is None  # an installed copy inside another checkout
