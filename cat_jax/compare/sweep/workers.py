"""Worker processes of a sweep, each with its share of the cores."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

from cat_jax.config import Cell
from cat_jax.errors import Diverged, InputError, Interrupted, SaveFailed, SettingError

POLL_SECONDS = 0.5
MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
"""Share of an accelerator's memory that a process takes, where the environment does not say."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM)

Work = Callable[[Sequence[Cell]], object]


def run_workers(
    work: Work, cells: Sequence[Cell], processes: int, watch: Callable[[], object]
) -> tuple[str, ...]:
    """Call ``work`` with the cells in several processes; return how those ended that were lost.

    Args:
        work: Claims cells and runs them.
        cells: Cells of the sweep.
        processes: Number of processes.
        watch: Called again and again while they work.

    Raises:
        InputError: There are more processes than cores.
        Interrupted: Ctrl-C; the processes have saved what they ran.
    """
    shares = split_cores(usable_cores(), processes)
    copies = [_plain_copy(cell) for cell in cells]
    context = multiprocessing.get_context("spawn")
    count = min(processes, len(cells))
    workers = [
        context.Process(target=_run_worker, args=(work, copies), name=f"process {n + 1}")
        for n in range(count)
    ]
    with _environment(MEMORY, f"{0.9 / max(count, 1):.2f}"):
        for worker, share in zip(workers, shares, strict=False):
            with _on_cores(share):
                worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            time.sleep(POLL_SECONDS)
            watch()
    except KeyboardInterrupt:
        _stop(workers)
        raise Interrupted("stopped; what was saved of each cell is kept", signal.SIGINT) from None
    except BaseException:
        _stop(workers)
        raise
    watch()
    codes = {worker.name: worker.exitcode for worker in workers}
    if any(code in STOPPED for code in codes.values()):
        raise Interrupted("stopped; what was saved of each cell is kept", signal.SIGTERM)
    return tuple(f"{name} ended with status {code}" for name, code in codes.items() if code)


def split_cores(cores: Sequence[int], processes: int) -> list[list[int]]:
    """Split cores into as many shares, as even as can be.

    Raises:
        SettingError: There are more processes than cores.
    """
    if processes > len(cores):
        raise SettingError(
            "processes", f"is {processes}, but there are {len(cores)} cores to share; lower it"
        )
    return [list(cores[n::processes]) for n in range(processes)]


def usable_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _plain_copy(cell: Cell) -> Cell:
    """Return a cell without what its task has cached, which no other process could read."""
    return replace(cell, run=replace(cell.run, data=replace(cell.run.data)))


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Start processes on these cores: they inherit them before they make their first thread."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for the processes started in the block, unless it is set."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _stop(workers: Sequence[BaseProcess]) -> None:
    """Ask processes to save and end, and wait until they have."""
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    for worker in workers:
        worker.join()


def _run_worker(work: Work, cells: Sequence[Cell]) -> None:
    """Work, in a process of its own, until nothing is left or the first process is gone."""
    os.setpgrp()  # Ctrl-C is for the first process, which then asks the others once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(cells)
    except Interrupted as error:
        sys.exit(128 + error.signum)
    except (InputError, Diverged, SaveFailed) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
