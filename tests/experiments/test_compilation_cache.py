"""Where commands keep compiled programs, and how to have it otherwise."""

import os
import subprocess
import sys

import pytest

COMMAND = """
import sys
from experiments.command_line import exit_status

def main():
    import jax
    print(jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3))).sum())

sys.exit(exit_status(main))
"""


@pytest.fixture
def run(tmp_path):
    """Run a command with a cache folder of its own; return where its programs may lie."""

    def run(base=tmp_path, **environment):
        settings = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.getcwd(),
            "JAX_PLATFORMS": "cpu",
            "XDG_CACHE_HOME": str(base),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", COMMAND],
            env=settings | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "36.0\n", "")
        return tmp_path / "cat_jax" / "programs"

    return run


def programs(folder):
    return {path.name for path in folder.glob("*-cache")}


def test_the_next_command_finds_the_programs(run):
    folder = run()
    first = programs(folder)
    assert first
    run()
    assert programs(folder) == first


def test_another_folder_none_or_one_that_cannot_be_made(run, tmp_path):
    folder = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert programs(tmp_path / "mine")
    assert not folder.exists()
    assert not programs(run(JAX_ENABLE_COMPILATION_CACHE="false"))
    (tmp_path / "file").touch()
    assert not programs(run(base=tmp_path / "file"))
