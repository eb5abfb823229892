"""A checkpoint of one mesh goes on on another, and of one number of processes on another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def environment(devices):
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(HERE.parents[1]),
    }


@pytest.mark.slow
def test_another_mesh(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "restore_elsewhere.py", tmp_path],
        env=environment(8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"
