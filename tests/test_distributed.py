"""How processes meet and what they say; ``tests/train/test_several_processes.py`` trains."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cat_jax.data.sources import write_records
from cat_jax.distributed import (
    CollectiveInputError,
    broadcast_from_primary,
    coordinator_args,
    join_sentences,
    sync_errors,
)
from cat_jax.errors import InputError
from cat_jax.tasks.stg import stg_records

ROOT = Path(__file__).resolve().parents[1]
ALL = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


def test_the_environment_says_where_to_meet():
    assert coordinator_args(ALL) == {
        "coordinator_address": "host:1234",
        "num_processes": 3,
        "process_id": 2,
        "cluster_detection_method": "deactivate",
    }
    assert coordinator_args({"PATH": "/bin"}) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": None}, "but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "3"}, r"JAX_PROCESS_ID must be .* got '3' of '3'"),
        ({"JAX_PROCESS_ID": "-1"}, r"JAX_PROCESS_ID must be .* got '-1'"),
        ({"JAX_NUM_PROCESSES": "two"}, r"got '2' of 'two'"),
        ({"JAX_COORDINATOR_ADDRESS": None}, "but not JAX_COORDINATOR_ADDRESS"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, r"must be HOST:PORT of process 0, got 'host'"),
    ],
)
def test_an_incomplete_environment_is_named(change, message):
    environment = {name: value for name, value in (ALL | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        coordinator_args(environment)


def test_a_sentence_names_the_processes_that_found_something():
    assert join_sentences(["no file", "no file"]) == "no file"
    assert (
        join_sentences(["", "no file", "", "no word"]) == "process 1: no file; process 3: no word"
    )


def test_one_process_agrees_with_itself():
    with sync_errors():
        pass
    with pytest.raises(InputError, match="no file") as caught, sync_errors():
        raise InputError("no file")
    assert not isinstance(caught.value, CollectiveInputError)  # the others have not got it
    with pytest.raises(KeyError), sync_errors():
        raise KeyError
    assert broadcast_from_primary(True) is True
    assert broadcast_from_primary(False) is False


def start(arguments, environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_bad_input_in_one_process_ends_all_with_one_sentence(tmp_path):
    """The second process finds its test file missing; no folder is made."""
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    write_records(tmp_path / "0" / "extra.jsonl", [next(stg_records(seed=0))])
    meeting = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    processes = [
        start(
            [
                *("-m", "experiments.train_stg", "--distributed", "--out", tmp_path / "runs"),
                *(
                    "--data.train-records",
                    "600",
                    "--data.test-records",
                    "4",
                    "--train.batch-size",
                    "8",
                ),
                *("--data.test-files", tmp_path / str(number) / "extra.jsonl"),
            ],
            meeting | {"JAX_PROCESS_ID": str(number)},
        )
        for number in range(2)
    ]
    (_, first), (_, second) = (process.communicate(timeout=400) for process in processes)
    assert [process.returncode for process in processes] == [2, 2], first + second
    assert "error: process 1: " in first
    assert "extra.jsonl" in first
    assert first.count("\n") == 1
    assert second == ""
    assert not (tmp_path / "runs").exists()


GIVES_UP = """
import sys
from cat_jax import distributed
from experiments.command_line import exit_status
distributed.PATIENCE_SECONDS = 2
sys.exit(exit_status(distributed.join_processes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_whose_companions_do_not_come_gives_up(number):
    port = free_port()
    meeting = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    started = time.monotonic()
    process = start(["-c", GIVES_UP], meeting | {"JAX_PROCESS_ID": str(number)})
    _, error = process.communicate(timeout=400)
    assert process.returncode == 2
    assert error.startswith(f"error: not all processes came together at 127.0.0.1:{port}")
    assert error.count("\n") == 1
    assert time.monotonic() - started > 2


@pytest.mark.slow
def test_distributed_without_a_place_to_meet_is_an_error():
    process = start(["-m", "experiments.train_stg", "--distributed"], {})
    _, error = process.communicate(timeout=400)
    assert process.returncode == 2
    assert error.startswith("error: --distributed finds no cluster that JAX knows")
    assert error.count("\n") == 1
