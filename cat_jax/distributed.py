"""Several processes as one run: start-up, collective errors, and the end when one is lost.

Training itself knows nothing of this: JAX runs the same program in every process, and the mesh
spans the devices of all of them.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from cat_jax.errors import InputError

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Environment variables of the coordinator, for clusters that JAX does not detect."""

PATIENCE_SECONDS = 300
"""Time limit for all processes to connect."""
HEARTBEAT_SECONDS = 60
"""Silence of a process after which JAX ends all others."""
MESSAGE_BYTES = 4096
BROKEN = ("Gloo", "NCCL", "nccl", "coordination service")
"""Words in the errors of collectives whose peer is gone."""

LOST = "another process is lost, or the network to it"
RESTART = "start all processes again with --resume"


class CollectiveInputError(InputError):
    """Bad input that stops every process; the primary one prints it."""


def is_primary() -> bool:
    """Tell whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def join_processes() -> None:
    """Connect to the other processes of the run, before anything else uses a device.

    TPU pods, Slurm, Open MPI and Kubernetes are detected by JAX. Elsewhere the environment says
    so: ``JAX_COORDINATOR_ADDRESS`` (host:port of process 0), ``JAX_NUM_PROCESSES`` and
    ``JAX_PROCESS_ID`` (from 0). If the others do not connect, this process ends with status 2.

    Raises:
        InputError: nothing says where to meet, or the address cannot be used.
    """
    where = coordinator_args(os.environ)
    # JAX aborts the process at its own timeout, without an exception: so be there first.
    late = threading.Timer(PATIENCE_SECONDS, give_up, [where])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **where,
            initialization_timeout=2 * PATIENCE_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise InputError(
            f"--distributed finds no cluster that JAX knows ({first_line(error)}): set {ADDRESS}, "
            f"{COUNT} and {NUMBER} for each process, or leave it out"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"the processes cannot meet{_at(where)} ({first_line(error)}): choose a free port of a "
            "host that all of them reach"
        ) from error
    finally:
        late.cancel()


def coordinator_args(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of ``jax.distributed.initialize``; none where JAX detects a cluster.

    Raises:
        InputError: variables are missing or malformed.
    """
    given = {name: environment[name] for name in (ADDRESS, COUNT, NUMBER) if name in environment}
    # A cluster that JAX detects may leave it the count, and still name the address.
    if COUNT not in given and NUMBER not in given:
        return {}
    missing = [name for name in (ADDRESS, COUNT, NUMBER) if name not in given]
    if missing:
        raise InputError(f"{' and '.join(given)} is set, but not {' and '.join(missing)}: set all")
    host, _, port = given[ADDRESS].rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{ADDRESS} must be HOST:PORT of process 0, got {given[ADDRESS]!r}")
    count, number = (int(given[n]) if given[n].isdigit() else -1 for n in (COUNT, NUMBER))
    if not 0 <= number < count:
        raise InputError(
            f"{NUMBER} must be a number from 0 to {COUNT} - 1, got {given[NUMBER]!r} of "
            f"{given[COUNT]!r}"
        )
    return {
        "coordinator_address": given[ADDRESS],
        "num_processes": count,
        "process_id": number,
        "cluster_detection_method": "deactivate",
    }


def give_up(where: dict[str, Any]) -> NoReturn:
    """End a process whose peers did not connect in time."""
    end(
        f"error: not all processes came together{_at(where)} within {PATIENCE_SECONDS} s: start "
        "all of them, with an address of process 0 that all of them reach",
        2,
    )


def _at(where: dict[str, Any]) -> str:
    """Describe the coordinator in a sentence."""
    if not where:
        return ""
    return f" at {where['coordinator_address']} as {where['num_processes']} processes"


@contextmanager
def sync_errors() -> Iterator[None]:
    """Run a block that all processes pass, or that raises in all of them.

    Nothing in it may wait for another process. A single process raises what was raised.

    Raises:
        CollectiveInputError: An InputError was raised inside the block, in this process or another.
    """
    if jax.process_count() == 1:
        yield
        return
    found = ""
    try:
        yield
    except InputError as error:
        found = str(error)
    sentences = gather_texts(found)
    if any(sentences):
        raise CollectiveInputError(join_sentences(sentences))


def join_sentences(sentences: list[str]) -> str:
    """Join the sentences of all processes; names those that found an error, unless all did."""
    if len(set(sentences)) == 1:
        return sentences[0]
    return "; ".join(f"process {n}: {text}" for n, text in enumerate(sentences) if text)


def gather_texts(text: str) -> list[str]:
    """Return the text of every process, in order; long ones are cut."""
    encoded = text.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
    all_bytes = multihost_utils.process_allgather(np.frombuffer(encoded, np.uint8), tiled=True)
    rows = np.asarray(all_bytes).reshape(-1, MESSAGE_BYTES)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows]


def broadcast_from_primary(answer: bool) -> bool:
    """Return the primary process's answer in every process."""
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(answer)))


def check_shared(file: Any) -> None:
    """Refuse a workdir that not all processes see; ``file`` was written by the first.

    Raises:
        CollectiveInputError: The processes see different folders.
    """
    multihost_utils.sync_global_devices("output folder")
    with sync_errors():
        if not file.is_file():
            raise InputError(
                f"{file}, which the first process wrote, is not there: put --out on a file system "
                "that all hosts share, or give a gs:// path"
            )


@contextmanager
def end_if_peer_lost(last_good: Callable[[], str]) -> Iterator[None]:
    """Run a block in which the loss of another process ends this one, with a sentence.

    It ends at once: whatever would be closed or finished in order waits for the lost process.
    Where JAX notices the loss by itself it aborts instead (SIGABRT), and its log says so.
    """
    try:
        yield
    except Exception as error:
        if is_peer_loss(error):
            end_alone(f"{LOST} ({first_line(error)}); {last_good()}; {RESTART}", 1)
        raise


def is_peer_loss(error: Exception) -> bool:
    """Tell whether an exception means that a peer process is gone."""
    return jax.distributed.is_initialized() and any(word in str(error) for word in BROKEN)


def end_alone(sentence: str, status: int) -> NoReturn:
    """End this process now, for an error that the other processes do not have."""
    end(f"process {jax.process_index()}: error: {sentence}", status)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message."""
    return str(error).partition("\n")[0].rstrip(".")


def end(sentence: str, status: int) -> NoReturn:
    """Print a sentence and end the process now, without waiting for any other."""
    print(sentence, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
