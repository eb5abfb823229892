"""Two processes, of which one is told to stop: both do, after the same step."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy import CONFIG, Toy

from cat_jax.train.metrics import read_metrics

HERE = Path(__file__).parent


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "stop_together.py", str(number), str(port), tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    deadline = time.monotonic() + 240
    while sum(1 for _ in read_metrics(tmp_path / "0/metrics.jsonl")) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    # Gloo greets first.
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert said[0] == said[1]
    step = int(re.fullmatch(r"stopped; step (\d+) is saved 15", said[0])[1])
    alone = Toy(tmp_path, replace(CONFIG, steps=step + 3, save_every=20))
    assert int(alone().step) == step + 3
    assert alone.start == step
    assert alone.steps == [step + 1, step + 2, step + 3]
