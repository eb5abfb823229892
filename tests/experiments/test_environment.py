import importlib.metadata
import json
import platform
import subprocess

import jax
import numpy as np
from experiments.environment import git_state, note_environment

from experiments import environment


def test_versions_and_devices(tmp_path):
    note_environment(tmp_path)
    note_environment(tmp_path)  # the same again adds nothing
    (noted,) = json.loads((tmp_path / "environment.json").read_text())
    versions = noted["versions"]
    assert versions["python"] == platform.python_version()
    assert (versions["jax"], versions["numpy"]) == (jax.__version__, np.__version__)
    assert versions["orbax-checkpoint"] == importlib.metadata.version("orbax-checkpoint")
    assert None not in versions.values()
    assert noted["devices"]["count"] == len(jax.devices())
    assert noted["devices"]["platform"] == "cpu"


def test_another_environment_is_added(tmp_path, monkeypatch):
    note_environment(tmp_path)
    monkeypatch.setattr(environment, "PACKAGES", ("jax", "no-such-package"))
    note_environment(tmp_path)
    first, second = json.loads((tmp_path / "environment.json").read_text())
    assert first["versions"].keys() > {"flax"}
    assert second["versions"]["no-such-package"] is None


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
