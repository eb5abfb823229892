"""Where a sweep keeps its cells: results that stay, runs in progress, claims of processes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

from etils import epath

from cat_jax.compare.evaluations import write_answers
from cat_jax.config import Cell
from cat_jax.errors import InputError
from cat_jax.evaluation.results import Evaluation
from cat_jax.files import read_json, write_text
from cat_jax.train.lock import InUse, hold_workdir
from cat_jax.train.remains import saved_steps
from cat_jax.train.workdir import (
    differences,
    json_settings,
    start_settings,
    training_settings,
)

State = Literal["done", "failed", "missing"]
MEND = "remove it and the cell runs again"


@dataclass(frozen=True)
class CellProgress:
    """How far a cell is.

    Attributes:
        cell: The cell.
        state: Whether there is a result, or why there is none.
        problem: The sentence of a failed cell.
        saved: Newest step that a missing cell continues from; None if there is none.
    """

    cell: Cell
    state: State
    problem: str | None = None
    saved: int | None = None


class SweepFolder:
    """The folder of a sweep, local or of an object store.

    ``results`` holds CELL.json, CELL.answers.jsonl and, of a failed cell, CELL.error.json; each is
    there as a whole or not at all. ``runs/CELL`` is the workdir of a cell until it has a result.
    """

    def __init__(self, path: str | PathLike[str]):
        """Take the folder; nothing is written."""
        self.path = epath.Path(path)

    def result_file(self, name: str) -> epath.Path:
        """Return the file of a cell's result."""
        return self.path / "results" / f"{name}.json"

    def answers_file(self, name: str) -> epath.Path:
        """Return the file of a cell's answers, a line per record."""
        return self.path / "results" / f"{name}.answers.jsonl"

    def error_file(self, name: str) -> epath.Path:
        """Return the file that says why a cell failed."""
        return self.path / "results" / f"{name}.error.json"

    def workdir(self, name: str) -> epath.Path:
        """Return the workdir of a cell's run."""
        return self.path / "runs" / name

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a cell for this process until the block ends; give whether it is free."""
        with ExitStack() as stack:
            try:
                stack.enter_context(hold_workdir(self.path / "claims", f"{name}.lock"))
            except InUse:
                yield False
                return
            yield True

    def progress(self, cell: Cell) -> CellProgress:
        """Look how far a cell is.

        Raises:
            InputError: Its result is of other settings, or cannot be read.
        """
        if self.result_file(cell.name).exists():
            self.read_result(cell)
            return CellProgress(cell, "done")
        if self.error_file(cell.name).exists():
            problem = read_json(self.error_file(cell.name), dict, MEND).get("error", "")
            return CellProgress(cell, "failed", str(problem))
        steps = saved_steps(self.workdir(cell.name))
        return CellProgress(cell, "missing", saved=steps[-1] if steps else None)

    def read_result(self, cell: Cell) -> dict[str, Any]:
        """Return the result of a cell.

        Raises:
            InputError: It is of other settings, or cannot be read.
        """
        file = self.result_file(cell.name)
        result = read_json(file, dict, MEND)
        changed = differences(result.get("settings"), cell_settings(cell))
        if changed:
            raise InputError(
                f"{file} is of other settings ({'; '.join(changed)}); remove it to run the cell "
                "again, or choose another folder (--out)"
            )
        return result

    def read_answers(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Return a cell's answers by test set, in the order of the records.

        Those after an intervention are under its name, in brackets after that of the set:
        ``iid [spurious]``.

        Raises:
            InputError: They cannot be read.
        """
        file = self.answers_file(name)
        found: dict[str, list[dict[str, Any]]] = {}
        try:
            for line in file.read_text().splitlines():
                answer = json.loads(line)
                edit = f" [{answer['intervention']}]" if "intervention" in answer else ""
                found.setdefault(answer["set"] + edit, []).append(answer)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} cannot be read ({error}); remove the result beside it and the cell runs "
                "again"
            ) from None
        return found

    def write_result(self, name: str, result: dict[str, Any], evaluation: Evaluation) -> None:
        """Write a cell's answers, then its result: where that is, both are whole."""
        write_answers(self.answers_file(name), evaluation)
        write_text(self.result_file(name), json.dumps(result, indent=1) + "\n")

    def write_error(self, name: str, error: dict[str, Any]) -> None:
        """Write why a cell failed."""
        write_text(self.error_file(name), json.dumps(error, indent=1) + "\n")

    def forget_error(self, name: str) -> None:
        """Remove what says that a cell failed: it runs again."""
        self.error_file(name).unlink(missing_ok=True)

    def remove_workdir(self, name: str) -> None:
        """Remove checkpoints, logs and exported model of a cell's run."""
        workdir = self.workdir(name)
        if workdir.exists():
            workdir.rmtree()


def cell_settings(cell: Cell) -> dict[str, Any]:
    """Return the settings that decide a cell's numbers, as JSON values."""
    run = cell.run
    return json_settings(
        model=start_settings(run.model),
        data=run.data,
        guidance=run.guidance,
        optimizer=run.optimizer,
        train=training_settings(run.train),
        method=cell.method,
        interventions=cell.interventions,
        text_loss=cell.text_loss,
        seed=cell.seed,
    )
