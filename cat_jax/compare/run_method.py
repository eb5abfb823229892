"""One method of a comparison or sweep: trained, evaluated, and forgotten but for its answers."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from etils import epath

from cat_jax.compare.comparison import MethodRun, run_title
from cat_jax.compare.methods import Method
from cat_jax.compare.phases import Phases
from cat_jax.compare.setup import ComparisonSetup
from cat_jax.compare.untrained import load_untrained
from cat_jax.config import LoraConfig, Optimizer, Training
from cat_jax.distributed import sync_errors
from cat_jax.evaluation.results import Evaluation
from cat_jax.evaluation.suite import evaluate_test_sets
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import VALIDATION
from cat_jax.train.fit import validation_evaluators
from cat_jax.train.metrics import Callback
from cat_jax.train.remains import check_run
from cat_jax.train.result import RunResult
from cat_jax.train.run import Evaluator, run_training
from cat_jax.train.setup import resolve_attention, setup_training
from cat_jax.train.training_data import TrainingData, align_validation
from cat_jax.train.workdir import run_settings

logger = logging.getLogger(__name__)

Progress = Callable[[str, int], AbstractContextManager[Callback | None]]
"""Maps the title and steps of a run to a context whose callback shows its progress."""
Inspect = Callable[[LanguageModel, Evaluation], None]
"""Looks at a model and its answers before its parameters are deleted."""


@dataclass(frozen=True)
class RunOptions:
    """How a method is run.

    Attributes:
        train: Training loop.
        optimizer: Optimizer.
        lora: Train low-rank adapters.
        workdir: Folder or ``gs://`` path of the run.
        resume: Continue the run that the workdir holds; a finished one is evaluated, not trained.
        progress: Shows the progress of the run.
        phases: Counts where the time goes.
    """

    train: Training
    optimizer: Optimizer
    lora: LoraConfig | None = None
    workdir: epath.Path | None = None
    resume: bool = True
    progress: Progress = lambda title, steps: nullcontext()
    phases: Phases = field(default_factory=Phases)


def describe_setup(setup: ComparisonSetup, method: Method, train: Training) -> list[str]:
    """Describe attention, training data and repeated test records, a sentence each."""
    if not method.trains:
        return []  # its prompts may be longer and need another attention
    kind = resolve_attention(setup.start, train, method.regularizer)
    attention = f"attention: {kind.implementation} ({kind.reason})"
    return [attention, f"training data: {setup.data[method.name]}", *map(str, setup.duplicates)]


def run_method(
    setup: ComparisonSetup,
    method: Method,
    options: RunOptions,
    inspect: Inspect = lambda result, found: None,
) -> MethodRun:
    """Train (unless the method does not) and evaluate one method; its parameters are deleted.

    Args:
        setup: From ``setup_comparison``, for this method among others.
        method: The method.
        options: How to run it.
        inspect: Looks at the model.

    Raises:
        InputError: Bad settings, data or model; nothing is written then.
        Diverged: A loss was no longer finite.
        Interrupted: A signal came; with a workdir the run can be resumed.
        SaveFailed: A checkpoint or log could not be written.
    """
    phase = options.phases.phase
    if method.trains:
        result: LanguageModel = _train(setup, method, options)
    else:
        title = run_title(method, setup.seed)
        with sync_errors(), phase("preparation"), options.progress(title, 0):
            result = load_untrained(setup, method.name, options.train, options.lora)
    with phase("evaluation"):
        found = evaluate_test_sets(
            result, setup.task, setup.tests[method.name], setup.interventions[method.name]
        )
    inspect(result, found)
    if not isinstance(result, RunResult):
        return MethodRun(method, setup.seed, found)
    seconds_per_step = result.summary()["seconds_per_step"]
    return MethodRun(method, setup.seed, found, result.history, seconds_per_step, result.selected)


def _train(setup: ComparisonSetup, method: Method, options: RunOptions) -> RunResult:
    """Train a method, or read what a finished run left."""
    started, phase = time.perf_counter(), options.phases.phase
    train, folder, seed = options.train, options.workdir, setup.seed
    guidance, data = setup.guidance[method.name], setup.data[method.name]
    settings = run_settings(
        setup.start,
        guidance=guidance,
        regularizer=method.regularizer,
        optimizer=options.optimizer,
        train=train,
        seed=seed,
        provenance={"data": setup.task},
    )
    with sync_errors(), phase("preparation"):
        if folder is not None and check_run(folder, settings, train, resume=options.resume):
            logger.info("%s is a finished run; it is evaluated, not trained", folder)
        training = setup_training(
            setup.start,
            setup.tokenizer,
            train,
            guidance=guidance,
            regularizer=method.regularizer,
            lora=options.lora,
            seed=seed,
        )
        validation = _validation(setup, method, train)
        evaluators: list[Evaluator] = [
            phase("evaluation")(evaluator)
            for evaluator in (
                *validation_evaluators(training, validation, train, guidance),
                partial(setup.eval_metrics, method.name),
            )
        ]
    title, steps = run_title(method, seed), train.for_sequences(len(data.examples)).steps
    with options.progress(title, steps) as show, phase("training"):
        return run_training(
            training,
            data,
            guidance=guidance,
            regularizer=method.regularizer,
            train=train,
            optimizer=options.optimizer,
            validation=validation,
            seed=seed,
            evaluators=evaluators,
            callbacks=[] if show is None else [show],
            workdir=folder,
            resume=options.resume,
            settings=settings,
            started=started,
        )


def _validation(setup: ComparisonSetup, method: Method, train: Training) -> TrainingData | None:
    """Align the task's validation records, with the method's prompt."""
    has_validation = VALIDATION in setup.task.splits
    records = setup.task.records(VALIDATION, setup.seed) if has_validation else []
    asked = method.asked(setup.task, setup.seed, records)
    return align_validation(asked, setup.tokenizer, train, setup.seed)
