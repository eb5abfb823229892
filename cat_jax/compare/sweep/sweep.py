"""All cells of a sweep, in this process or in several, on this machine or several."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import jax

from cat_jax.compare.methods import Method
from cat_jax.compare.run_method import Progress
from cat_jax.compare.sweep.cells import LastSeed, now, run_cell
from cat_jax.compare.sweep.folder import CellProgress, SweepFolder
from cat_jax.compare.sweep.workers import run_workers
from cat_jax.config import Cell
from cat_jax.config.cell import check_cells
from cat_jax.errors import Diverged, InputError
from cat_jax.files import save_errors
from cat_jax.train.determinism import make_deterministic
from cat_jax.train.provenance import environment

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Sweep:
    """What became of the cells.

    Attributes:
        cells: How far each cell is.
        lost: How each process ended that did not end by itself.
    """

    cells: list[CellProgress]
    lost: tuple[str, ...] = ()

    @property
    def failed(self) -> list[CellProgress]:
        """Return the cells that failed."""
        return [cell for cell in self.cells if cell.state == "failed"]

    @property
    def missing(self) -> list[CellProgress]:
        """Return the cells without a result that did not fail: another process may run them."""
        return [cell for cell in self.cells if cell.state == "missing"]


@dataclass(frozen=True)
class Options:
    """How cells are run; see ``run_sweep``."""

    methods: tuple[Method, ...] = ()
    keep_runs: bool = False
    command: str | None = None


def run_sweep(
    cells: Sequence[Cell],
    folder: str | PathLike[str],
    *,
    methods: Sequence[Method] = (),
    processes: int = 1,
    retry_failed: bool = False,
    keep_runs: bool = False,
    progress: Progress = lambda title, steps: nullcontext(),
    finished: Callable[[CellProgress], object] = lambda cell: None,
    command: str | None = None,
) -> Sweep:
    """Run the cells of a sweep that have no result yet; a cell that fails stops no other.

    Each cell is claimed before it runs, so that several processes, also on several machines that
    share the folder, work on one sweep: call this in each. One that was killed continues from the
    checkpoints of its cells.

    Args:
        cells: What to run, in this order. Cells of the same data side by side share their
            preparation, and cells of the same shapes their compiled programs.
        folder: Folder of the sweep.
        methods: Methods of your own that cells name.
        processes: Worker processes, which share the cores of this one among them.
        retry_failed: Run cells that failed before.
        keep_runs: Keep checkpoints, logs and exported models of finished cells.
        progress: Shows the progress of each run, in one process.
        finished: Called with every cell that has a result or failed.
        command: Command that runs the sweep, for the results.

    Raises:
        InputError: The cells are none or share a name, a result is of other settings, or there are
            more processes than cores.
        Interrupted: A signal came; calling this again continues.
        SaveFailed: A checkpoint, log or result could not be written.
    """
    check_cells(cells)
    store = SweepFolder(folder)
    if retry_failed:
        for cell in cells:
            store.forget_error(cell.name)
    before = [store.progress(cell) for cell in cells]
    todo = [found.cell for found in before if found.state == "missing"]
    options = Options(tuple(methods), keep_runs, command)
    lost: tuple[str, ...] = ()
    if processes > 1:
        work = partial(work_on, folder=str(folder), options=options)
        lost = run_workers(work, todo, processes, _announcer(store, todo, finished))
    else:
        work_on(todo, str(folder), options, progress=progress, finished=finished)
    if not keep_runs:
        _remove_finished(store, cells)
    return Sweep([store.progress(cell) for cell in cells], lost)


def work_on(
    cells: Sequence[Cell],
    folder: str,
    options: Options,
    *,
    progress: Progress = lambda title, steps: nullcontext(),
    finished: Callable[[CellProgress], object] = lambda cell: None,
) -> None:
    """Run cells one after another, but those that other processes hold or have finished."""
    if any(cell.run.train.deterministic for cell in cells):
        make_deterministic()
    store, last_seed = SweepFolder(folder), LastSeed()
    open_cells, claimed = list(cells), True
    while open_cells and claimed:  # again: a process that held a cell may have died
        claimed = False
        for cell in list(open_cells):
            with store.claim(cell.name) as is_ours:
                if not is_ours:
                    continue
                open_cells.remove(cell)
                if store.progress(cell).state != "missing":
                    continue
                claimed = True
                _run_or_note(cell, store, last_seed, options, progress)
            finished(store.progress(cell))


def _run_or_note(
    cell: Cell, store: SweepFolder, last_seed: LastSeed, options: Options, progress: Progress
) -> None:
    """Run a cell; what is wrong with it alone is noted, anything else is raised."""
    command = None if options.command is None else f"{options.command} --only {cell.name}"
    try:
        with save_errors(lambda: "finished cells are kept"):
            run_cell(
                cell,
                store,
                methods=options.methods,
                last_seed=last_seed,
                keep_run=options.keep_runs,
                progress=progress,
                command=command,
            )
    except (InputError, Diverged) as error:
        _note(cell, store, error, command)
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        _note(cell, store, error, command)


def _note(cell: Cell, store: SweepFolder, error: Exception, command: str | None) -> None:
    sentence = str(error).partition("\n")[0]
    logger.warning("cell %s failed: %s", cell.name, sentence)
    noted: dict[str, Any] = {
        "cell": cell.name,
        "error": sentence,
        "kind": type(error).__name__,
        "command": command,
        "date": now(),
        "machine": environment(),
    }
    with save_errors(lambda: "finished cells are kept"):
        store.write_error(cell.name, noted)


def _announcer(
    store: SweepFolder, cells: Sequence[Cell], finished: Callable[[CellProgress], object]
) -> Callable[[], None]:
    """Return what tells of the cells that other processes have finished since it last did."""
    waiting = list(cells)

    def announce() -> None:
        for cell in list(waiting):
            found = store.progress(cell)
            if found.state != "missing":
                waiting.remove(cell)
                finished(found)

    return announce


def _remove_finished(store: SweepFolder, cells: Sequence[Cell]) -> None:
    """Remove the run of a cell whose process was killed after it had written the result."""
    for cell in cells:
        if store.result_file(cell.name).exists() and store.workdir(cell.name).exists():
            with store.claim(cell.name) as is_ours:
                if is_ours:
                    store.remove_workdir(cell.name)
