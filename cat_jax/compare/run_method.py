"""One method of a comparison or sweep: trained, evaluated, and forgotten but for its answers."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from etils import epath

from cat_jax.compare.methods import Method
from cat_jax.compare.phases import Phases
from cat_jax.compare.setup import ComparisonSetup
from cat_jax.config import LoraConfig, Optimizer, Training
from cat_jax.distributed import sync_errors
from cat_jax.evaluation.suite import Evaluation, evaluate_test_sets
from cat_jax.tasks.base import VALIDATION
from cat_jax.train.fit import validation_evaluators
from cat_jax.train.metrics import Callback, Line
from cat_jax.train.remains import check_run
from cat_jax.train.result import RunResult
from cat_jax.train.run import Evaluator, run_training
from cat_jax.train.setup import resolve_attention, setup_training
from cat_jax.train.training_data import TrainingData, align_validation
from cat_jax.train.workdir import run_settings

logger = logging.getLogger(__name__)

Progress = Callable[[str, int], AbstractContextManager[Callback | None]]
"""Maps the title and steps of a run to a context whose callback shows its progress."""
Inspect = Callable[[RunResult, Evaluation], None]
"""Looks at a trained model and its answers before its parameters are deleted."""


@dataclass(frozen=True, eq=False)
class MethodRun:
    """A trained and evaluated method; its parameters are gone.

    Attributes:
        method: What was trained.
        seed: With which seed.
        evaluation: Answers and scores.
        history: Metrics of the run.
        seconds_per_step: Median over the log lines.
        selected: Which step was selected and why; None if it is the last.
    """

    method: Method
    seed: int
    evaluation: Evaluation
    history: list[Line]
    seconds_per_step: float
    selected: str | None

    @property
    def title(self) -> str:
        """Name for readers."""
        return run_title(self.method, self.seed)

    @property
    def scores(self) -> dict[str, float]:
        """Scores by name, as in the report."""
        return self.evaluation.scores | {"seconds_per_step": self.seconds_per_step}


def run_title(method: Method, seed: int) -> str:
    """Return the name of a run for readers."""
    return f"{method.title}, seed {seed}"


def describe_setup(setup: ComparisonSetup, method: Method, train: Training) -> list[str]:
    """Describe attention, training data and repeated test records, a sentence each."""
    kind = resolve_attention(setup.start, train.max_length, packed=train.pack)
    return [
        f"attention: {kind.implementation} ({kind.reason})",
        f"training data: {setup.data[method.name]}",
        *map(str, setup.duplicates),
    ]


def run_method(
    setup: ComparisonSetup,
    method: Method,
    *,
    train: Training,
    optimizer: Optimizer,
    lora: LoraConfig | None = None,
    workdir: epath.Path | None = None,
    resume: bool = True,
    progress: Progress = lambda title, steps: nullcontext(),
    phases: Phases | None = None,
    inspect: Inspect = lambda result, found: None,
) -> MethodRun:
    """Train and evaluate one method of a set-up; its parameters are deleted.

    Args:
        setup: From ``setup_comparison``, for this method among others.
        method: The method.
        train: Training loop.
        optimizer: Optimizer.
        lora: Train low-rank adapters.
        workdir: Folder or ``gs://`` path of this run.
        resume: Continue the run that the workdir holds; a finished one is evaluated, not trained.
        progress: Shows the progress of the run.
        phases: Counts where the time goes.
        inspect: Looks at the trained model.

    Raises:
        InputError: Bad settings, data or model; nothing is written then.
        Diverged: A loss was no longer finite.
        Interrupted: A signal came; with a workdir the run can be resumed.
        SaveFailed: A checkpoint or log could not be written.
    """
    started = time.perf_counter()
    phase = Phases().phase if phases is None else phases.phase
    guidance, data, seed = setup.guidance[method.name], setup.data[method.name], setup.seed
    settings = run_settings(
        setup.start,
        guidance=guidance,
        optimizer=optimizer,
        train=train,
        seed=seed,
        provenance={"data": setup.task},
    )
    with sync_errors(), phase("preparation"):
        if workdir is not None and check_run(workdir, settings, train, resume=resume):
            logger.info("%s is a finished run; it is evaluated, not trained", workdir)
        training = setup_training(
            setup.start, setup.tokenizer, train, guidance=guidance, lora=lora, seed=seed
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
    with progress(title, steps) as show, phase("training"):
        result = run_training(
            training,
            data,
            guidance=guidance,
            train=train,
            optimizer=optimizer,
            validation=validation,
            seed=seed,
            evaluators=evaluators,
            callbacks=[] if show is None else [show],
            workdir=workdir,
            resume=resume,
            settings=settings,
            started=started,
        )
    with phase("evaluation"):
        found = evaluate_test_sets(
            result, setup.task, setup.tests[method.name], setup.interventions[method.name]
        )
    inspect(result, found)
    seconds_per_step = result.summary()["seconds_per_step"]
    return MethodRun(method, seed, found, result.history, seconds_per_step, result.selected)


def _validation(setup: ComparisonSetup, method: Method, train: Training) -> TrainingData | None:
    """Align the task's validation records, with the method's prompt."""
    has_validation = VALIDATION in setup.task.splits
    records = setup.task.records(VALIDATION, setup.seed) if has_validation else []
    if method.prompt is not None:
        records = list(map(method.prompt, records))
    return align_validation(records, setup.tokenizer, train, setup.seed)
