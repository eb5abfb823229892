"""Several methods from the same start on the same records, over seeds."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from etils import epath

from cat_jax.compare.attention_example import AttentionExample
from cat_jax.compare.comparison import Comparison
from cat_jax.compare.methods import Method, find_method
from cat_jax.compare.run_method import Progress, RunOptions, describe_setup, run_method
from cat_jax.compare.setup import ComparisonSetup, setup_comparison
from cat_jax.config import Guidance, LoraConfig, Optimizer, Training
from cat_jax.distributed import sync_errors
from cat_jax.errors import InputError
from cat_jax.evaluation.results import Evaluation
from cat_jax.evaluation.testsets import SPURIOUS
from cat_jax.files import check_name
from cat_jax.models.language_model import LanguageModel
from cat_jax.ranges import Seed, check_number
from cat_jax.tasks.base import Task
from cat_jax.train.lock import check_free
from cat_jax.train.result import summarize
from cat_jax.train.setup import Start, resolve_start
from cat_jax.train.workdir import (
    begin_workdir,
    check_workdir,
    json_settings,
    start_settings,
    training_settings,
)

logger = logging.getLogger(__name__)


def compare(
    model: Start | str | PathLike[str],
    task: Task,
    *,
    methods: Sequence[str | Method] = ("baseline", "cat"),
    guidance: Guidance | None = None,
    train: Training | None = None,
    optimizer: Optimizer | None = None,
    lora: LoraConfig | None = None,
    seeds: Sequence[int] = (0,),
    interventions: Sequence[str] = (SPURIOUS,),
    workdir: str | PathLike[str] | None = None,
    resume: bool = True,
    progress: Progress = lambda title, steps: nullcontext(),
    provenance: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train and evaluate every method for every seed; parameters are kept for one run at a time.

    Args:
        model: As in ``cat_jax.train.fit.fit``.
        task: Records to train and test on.
        methods: Names or ``Method`` objects; the first is what the others are compared with.
        guidance: Second objective of the method "cat".
        train: Training loop, the same for every run.
        optimizer: Optimizer, the same for every run.
        lora: Train low-rank adapters.
        seeds: Each gives its own initialisation, data order and generated records.
        interventions: Names of the task's interventions (``Task.interventions``): how many answers
            each changes is reported. "spurious" is left out of a task that has none.
        workdir: Folder or ``gs://`` path; each run has ``seed-SEED/METHOD`` in it.
        resume: Continue the runs that the workdir holds.
        progress: Shows the progress of each run.
        provenance: JSON values to note with the settings.

    Raises:
        InputError: Bad settings, data or model; nothing is written then.
        Diverged: A loss was no longer finite.
        Interrupted: A signal came; with a workdir the comparison can be resumed.
        SaveFailed: A checkpoint or log could not be written.
    """
    train, optimizer = train or Training(), optimizer or Optimizer()
    with sync_errors():
        chosen = [find_method(method) for method in methods]
        for seed in seeds:
            check_number("seeds", seed, Seed)
        _check_distinct(seeds, [method.name for method in chosen])
        start = resolve_start(model, lora)
        settings = json_settings(
            **(provenance or {}),
            model=start_settings(start),
            data=task,
            guidance=guidance,
            optimizer=optimizer,
            train=training_settings(train),
            methods=[method.name for method in chosen],
            seeds=seeds,
            interventions=interventions,
        )
        path = None if workdir is None else epath.Path(workdir)
        if path is not None:
            check_free(path)
            check_workdir(path, settings, resume=resume)
    comparison = Comparison(settings)
    options = RunOptions(train, optimizer, lora, path, resume, progress, comparison.phases)
    phase = comparison.phases.phase
    with ExitStack() as stack:
        stack.enter_context(comparison.phases.compilation_apart())
        for number, seed in enumerate(seeds):
            with sync_errors(), phase("preparation"):
                setup = setup_comparison(
                    start, task, chosen, guidance, train, seed, interventions=interventions
                )
                comparison.rules.append(setup.rules)
            if path is not None and number == 0:
                again = partial(check_workdir, path, settings, resume=resume)
                stack.enter_context(begin_workdir(path, settings, again, _kept))
            for method in chosen:
                _add_run(comparison, setup, method, options)
    return comparison


def _add_run(
    comparison: Comparison, setup: ComparisonSetup, method: Method, options: RunOptions
) -> None:
    """Train, evaluate and forget one method."""
    seed = setup.seed
    is_first_seed = not comparison.runs or comparison.runs[0].seed == seed
    if not any(run.method.trains for run in comparison.runs):
        for sentence in describe_setup(setup, method, options.train):
            comparison.note(sentence)
    if setup.guidance[method.name] is not None and is_first_seed:
        comparison.note(f"annotations for {method.title}: {setup.data[method.name].stats}")

    def inspect(result: LanguageModel, found: Evaluation) -> None:
        if is_first_seed and method.prompt is None:  # the figure shows one text
            with comparison.phases.phase("figures"):
                _add_example(comparison, setup, method, result, found)

    folder = options.workdir and options.workdir / f"seed-{seed}" / method.name
    resume = options.resume or bool(comparison.runs)
    run = run_method(setup, method, replace(options, workdir=folder, resume=resume), inspect)
    if run.selected is not None:
        comparison.note(f"{run.title}: {run.selected}")
    if method.trains:
        comparison.seconds += summarize(run.history)["seconds"]
    comparison.runs.append(run)


def _add_example(
    comparison: Comparison,
    setup: ComparisonSetup,
    method: Method,
    result: LanguageModel,
    found: Evaluation,
) -> None:
    """Keep what the attention figure needs; a figure must not cost the report."""
    tests = setup.tests[method.name]
    name = (setup.curve_sets or list(tests))[-1]
    if comparison.example is None:
        comparison.example = AttentionExample(setup.task, tests[name], setup.tokenizer)
    try:
        comparison.example.add(method.title, result, np.array(found[name].right))
    except Exception as error:
        logger.debug("attention of %s", method.title, exc_info=True)
        comparison.note(f"warning: no attention figure for {method.title}: {error}")


def _kept() -> str:
    return "finished runs are saved"


def _check_distinct(seeds: Sequence[int], methods: Sequence[str]) -> None:
    for name, values in (("seeds", seeds), ("methods", methods)):
        if not values or len(set(values)) < len(values):
            shown = ", ".join(map(str, values)) or "none"
            raise InputError(f"{name} must be different, at least one, got {shown}")
    for method in methods:
        check_name(method, "the name of a method")
