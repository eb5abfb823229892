"""One training run from a set-up: state, step, checkpoints, log, evaluation, export."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from etils import epath
from safetensors import SafetensorError

from cat_jax.config import Guidance, Optimizer, Pretrained, Regularizer, Training
from cat_jax.data.batches import training_batches
from cat_jax.distributed import broadcast_from_primary, end_if_peer_lost, is_primary, sync_errors
from cat_jax.files import save_errors
from cat_jax.losses.budget import logit_budget
from cat_jax.losses.schedules import guidance_weight
from cat_jax.sharding import process_indices
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.divergence import unusual_settings
from cat_jax.train.evaluations import Evaluations
from cat_jax.train.fingerprint import Fingerprint, note_data
from cat_jax.train.in_memory import BestInMemory
from cat_jax.train.loop import train as run_loop
from cat_jax.train.metrics import METRICS_FILE, Callback, Line, MetricsLog, read_metrics
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.remains import (
    CHECKPOINTS,
    check_run,
    last_good,
    saved_steps,
    set_aside_export,
)
from cat_jax.train.result import RunResult
from cat_jax.train.setup import TrainSetup
from cat_jax.train.state import TrainState, new_state
from cat_jax.train.step import TrainStep, make_train_step
from cat_jax.train.throughput import step_flops
from cat_jax.train.tracker import open_tracker
from cat_jax.train.training_data import TrainingData, fingerprints
from cat_jax.train.workdir import begin_workdir, is_extended, is_occupied

logger = logging.getLogger(__name__)

Evaluator = Callable[[RunResult], Mapping[str, float]]
"""Maps the run so far (its parameters at this step) to metrics for the history."""


def run_training(
    setup: TrainSetup,
    data: TrainingData,
    *,
    guidance: Guidance | None,
    train: Training,
    optimizer: Optimizer,
    regularizer: Regularizer | None = None,
    validation: TrainingData | None = None,
    seed: int = 0,
    evaluators: Sequence[Evaluator] = (),
    callbacks: Sequence[Callback] = (),
    workdir: epath.Path | None = None,
    resume: bool = True,
    settings: dict[str, Any] | None = None,
    started: float | None = None,
) -> RunResult:
    """Train from a set-up, whose parameters are deleted; see ``fit``.

    Args:
        setup: Where to start.
        data: Training examples.
        guidance: Second objective.
        train: Training loop.
        optimizer: Optimizer.
        regularizer: Another use of the annotation.
        validation: Validation data, by which a resumed run knows its own; ``evaluators`` use it.
        seed: Seed of the data order, and of what a regularizer draws.
        evaluators: Metrics to evaluate.
        callbacks: Called with every new line of the history.
        workdir: Where to write.
        resume: Continue the run that the workdir holds.
        settings: JSON values that decide the numbers.
        started: ``time.perf_counter()`` when the set-up began.
    """
    settings = settings or {}
    with sync_errors():
        epochs, train = train.epochs, train.for_sequences(len(data.examples))
    if epochs is not None:
        logger.info("%g epochs: %d steps", epochs, train.steps)
    known = fingerprints(data, validation)
    run = _Run(setup, data, train, evaluators)
    with sync_errors():
        finished = workdir is not None and check_run(workdir, settings, train, known, resume=resume)
    if workdir is not None and finished:
        return _restore_finished(run, setup, train, optimizer, workdir)
    with sync_errors():
        batches = training_batches(
            data.examples,
            batch_size=train.batch_size,
            seed=seed,
            process_indices=process_indices(setup.mesh, train.batch_size),
        )
        step = _make_step(setup, data, guidance, train, optimizer, regularizer, seed)
        state = _initial_state(setup, train, optimizer)
        first = _initial_metrics(run, state.params, workdir)
    with ExitStack() as stack:
        if workdir is not None:
            again = partial(_begin, workdir, settings, train, known, resume=resume)
            kept = partial(last_good, workdir)
            stack.enter_context(begin_workdir(workdir, settings, again, kept))
            if is_primary():
                with save_errors(kept):
                    note_data(workdir, known, begun=bool(saved_steps(workdir)))
        with save_errors(lambda: last_good(workdir)):
            checkpoints = _open_checkpoints(workdir, settings, train)
        stack.callback(checkpoints.close)
        resumed = isinstance(checkpoints, Checkpoints) and checkpoints.latest_step() is not None
        if isinstance(checkpoints, Checkpoints) and resumed:
            state = checkpoints.restore(state, batches)
        with checkpoints.writing():
            log = MetricsLog(
                workdir,
                int(state.step) if resumed else None,
                tracker=open_tracker(
                    train.wandb_project if is_primary() else None, workdir, settings
                ),
                callbacks=callbacks,
                started=time.perf_counter() if started is None else started,
            )
        stack.callback(_close, log, checkpoints)
        run.history = log.history
        if not resumed:
            with checkpoints.writing():
                log.write("eval", 0, first)
            log.notify()
        with end_if_peer_lost(checkpoints.last_good):
            state = run_loop(
                state,
                step,
                batches,
                config=train,
                steps_per_epoch=train.steps_per_epoch(len(data.examples)),
                flops=step_flops(setup.model.config, setup.base and setup.base.lora),
                checkpoints=checkpoints,
                log=log,
                evaluate=run.evaluate,
                unusual=unusual_settings(optimizer, guidance, setup.base and setup.base.lora),
            )
        result = run.result(state.params)
        if workdir is not None:
            _export(result, workdir)
    return result


def _begin(
    workdir: epath.Path,
    settings: Mapping[str, Any],
    train: Training,
    known: Mapping[str, Fingerprint],
    *,
    resume: bool,
) -> None:
    """Check the workdir that is held now, and set an older export aside."""
    check_run(workdir, settings, train, known, resume=resume)
    if is_occupied(workdir) and is_extended(workdir, settings):
        set_aside_export(workdir)


def _restore_finished(
    run: "_Run", setup: TrainSetup, train: Training, optimizer: Optimizer, workdir: epath.Path
) -> RunResult:
    """Return the result of a finished run; write nothing."""
    state = _initial_state(setup, train, optimizer)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, {}, keep=train.keep)
    try:
        state = checkpoints.restore_finished(state)
    finally:
        checkpoints.close()
    run.history = list(read_metrics(workdir / METRICS_FILE))
    return run.result(state.params)


def _initial_state(setup: TrainSetup, train: Training, optimizer: Optimizer) -> TrainState:
    return new_state(
        setup.params, make_optimizer(optimizer, train.steps), setup.mesh, donate_params=True
    )


def _close(log: MetricsLog, checkpoints: Checkpoints | BestInMemory) -> None:
    with checkpoints.writing():
        log.close()


class _Run:
    """A run in progress: what evaluators see of it."""

    def __init__(
        self,
        setup: TrainSetup,
        data: TrainingData,
        train: Training,
        evaluators: Sequence[Evaluator],
    ):
        # Not the set-up itself: its initial parameters are gone once training begins.
        self._complete = setup.complete_params
        self._setup, self._data, self._train = setup, data, train
        self._evaluators = evaluators
        self.history: list[Line] = []

    def result(self, trained: Any) -> RunResult:
        base, source = self._setup.base, self._setup.source
        return RunResult(
            self._setup.model,
            self._complete(trained),
            self._setup.tokenizer,
            history=self.history,
            train=self._train,
            attention=self._setup.attention,
            stats=self._data.stats,
            adapters=None if base is None else trained,
            lora=None if base is None else base.lora,
            base_name=source.name if isinstance(source, Pretrained) else None,
            end_ids=tuple(dict.fromkeys([*self._setup.end_ids, *self._data.end_ids])),
        )

    def evaluate(self, trained: Any) -> dict[str, float]:
        result = self.result(trained)
        return {k: float(v) for evaluate in self._evaluators for k, v in evaluate(result).items()}


def _make_step(
    setup: TrainSetup,
    data: TrainingData,
    guidance: Guidance | None,
    train: Training,
    optimizer: Optimizer,
    regularizer: Regularizer | None,
    seed: int,
) -> TrainStep:
    gamma = None
    if guidance is not None:
        gamma = guidance_weight(
            guidance.schedule,
            guidance.weight,
            rate=guidance.rate,
            steps=train.steps,
            steps_per_epoch=train.steps_per_epoch(len(data.examples)),
        )
    return make_train_step(
        setup.model,
        make_optimizer(optimizer, train.steps),
        setup.mesh,
        guidance,
        gamma,
        setup.base,
        regularizer=regularizer,
        seed=seed,
        accumulate=train.accumulate,
        budget=logit_budget(data.examples, setup.model.config.vocab_size, train.logits_mib),
    )


def _initial_metrics(run: _Run, params: Any, workdir: epath.Path | None) -> dict[str, float]:
    """Evaluate before the first step, unless there is a checkpoint to continue from.

    The parameters lie on the mesh as those of later steps do, so that no program is compiled twice.

    Raises:
        InputError: No evaluation gives ``train.best``.
    """
    if workdir is not None and saved_steps(workdir):
        return {}
    values = run.evaluate(params)
    Evaluations().add(0, values, run._train.best)
    return values


def _open_checkpoints(
    workdir: epath.Path | None, settings: dict[str, Any], train: Training
) -> Checkpoints | BestInMemory:
    if workdir is None:
        return BestInMemory()
    return Checkpoints(workdir / CHECKPOINTS, settings, keep=train.keep)


def _export(result: RunResult, workdir: epath.Path) -> None:
    """Leave the trained model in the workdir, unless it is there."""
    folder = workdir / result.export_name
    if broadcast_from_primary(folder.exists()):
        return
    with save_errors(lambda: last_good(workdir), SafetensorError):
        result.save_pretrained(folder, dtype=result.train.export_dtype)
