"""Training in two and four processes that talk over loopback equals training in one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cat_jax.train.metrics import read_metrics
from cat_jax.train.throughput import TIMINGS

sys.path.insert(0, str(Path(__file__).parent))  # for one_of_several.py

from one_of_several import run

SCRIPT = Path(__file__).with_name("one_of_several.py")
QUICK_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
pytestmark = pytest.mark.slow


def launch(count, folder, shape, steps=7, kill=None, devices=1):
    """Runs the script in ``count`` processes; gives their exit statuses and errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILE}"
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
    }
    words = [sys.executable, SCRIPT, folder, *map(json.dumps, (shape, steps, kill))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    errors = [folder / f"errors-{number}" for number in range(count)]
    texts = [path.read_text() for path in errors]
    for path in errors:
        path.unlink()
    return json.loads(done.stdout.splitlines()[-1]), texts


def assert_ended_well(statuses, errors):
    assert statuses == [0] * len(statuses), errors


def reports(folder):
    """What each process wrote about its part."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("process-*.json"))]


def numbers(folder):
    """All logged values but times."""
    return [
        {name: value for name, value in line.items() if name not in TIMINGS}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def assert_equal_runs(one, other, **tolerance):
    """Losses, evaluations and the model that was left."""
    assert len(numbers(one)) == len(numbers(other)) > 0
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert a.keys() == b.keys()
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        np.testing.assert_allclose(*([x[n] for n in a if n != "kind"] for x in (a, b)), **tolerance)
    assert_equal_models(one, other, **tolerance)


def assert_equal_models(one, other, **tolerance):
    """The parameters that were left."""
    first, second = (load_file(folder / "model/model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], err_msg=name, **tolerance)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The run of one process with one device, and the rows it saw."""
    folder = tmp_path_factory.mktemp("single")
    return folder, run(folder)["seen"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An undisturbed run of two processes."""
    folder = tmp_path_factory.mktemp("pair")
    assert_ended_well(*launch(2, folder, (2, 1, 1)))
    return folder


def test_two_processes_train_to_the_numbers_of_one(single, pair):
    assert_equal_runs(single[0], pair, atol=1e-5, rtol=1e-5)
    assert [report["first"] for report in reports(pair)] == [True, False]


def test_the_rows_of_two_processes_make_up_the_batches_of_one(single, pair):
    shares = reports(pair)
    assert [share["own"] for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    together = np.concatenate([share["seen"] for share in shares], axis=1)
    np.testing.assert_array_equal(together, single[1])


def test_four_processes_share_parameters_and_heads_and_fewer_go_on(single, tmp_path):
    assert_ended_well(*launch(4, tmp_path, (1, 2, 2), steps=3))
    own = [share["own"] for share in reports(tmp_path)]
    assert own == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2
    assert run_again(tmp_path, steps=5) == 3
    for report in tmp_path.glob("process-*.json"):
        report.unlink()
    assert_ended_well(*launch(2, tmp_path, (1, 2, 2), devices=2))
    assert [report["start"] for report in reports(tmp_path)] == [5, 5]
    assert [report["dealt"] for report in reports(tmp_path)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    one, other = (
        [line["loss"] for line in numbers(folder) if line["kind"] == "train"]
        for folder in (single[0], tmp_path)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert_equal_models(single[0], tmp_path, atol=1e-5, rtol=1e-5)


def run_again(folder, steps):
    (folder / "model").rename(folder / "model-before")
    start = run(folder, steps=steps)["start"]
    (folder / "model").rename(folder / "model-between")
    return start


def test_a_killed_process_ends_the_job_and_a_restart_repeats_the_run(pair, tmp_path):
    statuses, errors = launch(2, tmp_path, (2, 1, 1), kill=(1, 5))
    assert statuses == [1, -signal.SIGKILL]
    assert "process 0: error: another process is lost" in errors[0]
    good = tmp_path / "checkpoints/3"
    assert f"last good checkpoint is {good}; start all processes again" in errors[0]
    assert_ended_well(*launch(2, tmp_path, (2, 1, 1)))
    assert [report["start"] for report in reports(tmp_path)] == [3, 3]
    assert_equal_runs(pair, tmp_path, rtol=0, atol=0)
