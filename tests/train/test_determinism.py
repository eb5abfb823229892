import os
import subprocess
import sys
from pathlib import Path

import pytest

from cat_jax.train.determinism import FLAG, make_deterministic

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, FLAG), ("--xla_a=1 --xla_b", f"--xla_a=1 --xla_b {FLAG}"), (FLAG, FLAG)],
)
def test_the_flag_joins_those_of_the_user(monkeypatch, before, after):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    make_deterministic()
    assert os.environ["XLA_FLAGS"] == after


SCRIPT = """
import os, sys
from jax._src import xla_bridge
from cat_jax import distributed
from experiments import {program} as program

def stop(*_):
    print(os.environ.get("XLA_FLAGS"), xla_bridge.backends_are_initialized())
    import jax
    print(jax.numpy.arange(3).sum())  # XLA takes the flag
    sys.exit(0)

distributed.is_primary = stop  # the first to ask for devices
program.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments"),
    [("finetune", ["--model.name", "m", "--data.train", "t"]), ("train_stg", [])],
)
def test_the_flag_is_set_before_any_device_is_used(program, arguments):
    code = SCRIPT.format(program=program)
    command = [sys.executable, "-c", code, *arguments, "--train.deterministic"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split("\n")[:2] == [f"{FLAG} False", "3"], done.stderr
