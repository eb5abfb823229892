"""One cell of a sweep: trained, evaluated, and left as a result that stays."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from os import PathLike
from typing import Any

import numpy as np

from cat_jax.compare.comparison import MethodRun
from cat_jax.compare.methods import Method, find_method
from cat_jax.compare.phases import Phases
from cat_jax.compare.report import TEXT_LOSS
from cat_jax.compare.run_method import Progress, RunOptions, describe_setup, run_method
from cat_jax.compare.setup import (
    ComparisonSetup,
    SeedData,
    prepare_seed,
    prompt_kind,
    setup_comparison,
)
from cat_jax.compare.sweep.folder import SweepFolder, cell_settings
from cat_jax.compare.sweep.workers import usable_cores
from cat_jax.config import Cell
from cat_jax.evaluation.results import Evaluation
from cat_jax.evaluation.statistics import share_interval
from cat_jax.evaluation.suite import TestAnswers
from cat_jax.evaluation.text_loss import python_texts, text_loss
from cat_jax.models.language_model import LanguageModel
from cat_jax.train.provenance import describe_environment, environment
from cat_jax.train.result import summarize
from cat_jax.train.setup import resolve_start


class LastSeed:
    """Keeps what the last cell prepared of its seed, for the next one of the same."""

    def __init__(self):
        """Begin with nothing."""
        self._key: tuple[Any, ...] | None = None
        self._data: SeedData | None = None

    def prepared(self, cell: Cell, method: Method) -> SeedData:
        """Return records, tokenizer and test sets of a cell.

        Raises:
            InputError: Whatever is wrong with data or tokenizer.
        """
        run = cell.run
        key = run.model, run.data, prompt_kind(method), run.train, run.seed, cell.interventions
        if self._data is None or key != self._key:
            self._key = self._data = None  # not two at a time
            start = resolve_start(run.model)
            self._data = prepare_seed(
                start, run.data, [method], run.train, run.seed, cell.interventions
            )
            self._key = key
        return self._data


def run_cell(
    cell: Cell,
    folder: str | PathLike[str] | SweepFolder,
    *,
    methods: Sequence[Method] = (),
    last_seed: LastSeed | None = None,
    keep_run: bool = False,
    progress: Progress = lambda title, steps: nullcontext(),
    command: str | None = None,
) -> dict[str, Any]:
    """Train and evaluate one cell, or continue it, and write its result; return that.

    Args:
        cell: What to run.
        folder: Folder of the sweep; the run is in ``runs/CELL`` until it has a result.
        methods: Methods of your own that cells name.
        last_seed: Shares data with the cell before.
        keep_run: Keep checkpoints, logs and the exported model.
        progress: Shows the progress of the run.
        command: Command that runs this cell alone, for the result.

    Raises:
        InputError: Bad settings, data or model.
        Diverged: A loss was no longer finite.
        Interrupted: A signal came; the cell can be continued.
        SaveFailed: A checkpoint or log could not be written.
    """
    store = folder if isinstance(folder, SweepFolder) else SweepFolder(folder)
    own = {method.name: method for method in methods}
    method = own.get(cell.method) or find_method(cell.method)
    config, phases = cell.run, Phases()
    with phases.compilation_apart():
        with phases.phase("preparation"):
            setup = setup_comparison(
                resolve_start(config.model),
                config.data,
                [method],
                config.guidance,
                config.train,
                config.seed,
                prepared=(last_seed or LastSeed()).prepared(cell, method),
            )
        options = RunOptions(
            config.train,
            config.optimizer,
            workdir=store.workdir(cell.name),
            progress=progress,
            phases=phases,
        )
        losses: dict[str, float] = {}

        def inspect(model: LanguageModel, found: Evaluation) -> None:
            if cell.text_loss:
                losses[TEXT_LOSS] = text_loss(model, python_texts()).loss

        run = run_method(setup, method, options, inspect)
    result = _result(cell, setup, run, run.scores | losses, phases, command)
    store.write_result(cell.name, result, run.evaluation)
    if not keep_run:
        store.remove_workdir(cell.name)
    return result


def _result(
    cell: Cell,
    setup: ComparisonSetup,
    run: MethodRun,
    scores: Mapping[str, float],
    phases: Phases,
    command: str | None,
) -> dict[str, Any]:
    notes = describe_setup(setup, run.method, cell.run.train)
    if setup.guidance[run.method.name] is not None:
        notes.append(f"annotations: {setup.data[run.method.name].stats}")
    notes += [run.selected] if run.selected else []
    evaluation = run.evaluation
    first = next(iter(evaluation.values()))
    return {
        "cell": cell.name,
        "row": cell.row,
        "method": run.method.name,
        "title": run.method.title,
        "seed": cell.seed,
        "scores": {name: known(score) for name, score in scores.items()},
        "test_sets": {name: _test_set(found) for name, found in evaluation.items()},
        "changed": {
            name: _changed(share, len(first.answers)) for name, share in evaluation.changed.items()
        },
        "reference_rules": setup.rules,
        "training": summarize(run.history) if run.history else None,
        "curve": [line for line in run.history if line["kind"] == "eval"],
        "time": {name: round(seconds, 2) for name, seconds in phases.seconds.items()},
        "notes": notes,
        "command": command,
        "date": now(),
        "machine": environment() | {"description": describe_environment()},
        "cores": len(usable_cores()),
        "settings": cell_settings(cell),
    }


def _test_set(found: TestAnswers) -> dict[str, Any]:
    right = np.asarray(found.right, bool)
    return {
        "records": len(right),
        "right": int(right.sum()),
        "interval": list(share_interval(right)),
        "causal_mass": None if found.mass is None else known(found.mass.mean),
        "measures": {name: known(value) for name, value in found.measures.items()},
    }


def _changed(share: float, records: int) -> dict[str, Any]:
    """Return how many of the answers an intervention changed, with Wilson's interval."""
    changed = round(share * records)
    interval = share_interval(np.arange(records) < changed)
    return {"records": records, "changed": changed, "interval": list(interval)}


def known(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
