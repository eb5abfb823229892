"""The loop around the pure step: it logs, evaluates, saves, and stops when it must."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from cat_jax.config import Training
from cat_jax.data.batches import Batch
from cat_jax.errors import Diverged, Interrupted
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.divergence import NONFINITE, advice, find_nonfinite, first_nonfinite
from cat_jax.train.evaluations import Evaluations
from cat_jax.train.in_memory import BestInMemory
from cat_jax.train.metrics import MetricsLog
from cat_jax.train.profiling import StepTrace
from cat_jax.train.signals import StopRequest, stop_requests
from cat_jax.train.state import TrainState
from cat_jax.train.step import Metrics, TrainStep
from cat_jax.train.throughput import StepFlops, StepTimer


def train(
    state: TrainState,
    train_step: TrainStep,
    batches: grain.DatasetIterator,
    *,
    config: Training,
    steps_per_epoch: int,
    flops: StepFlops,
    checkpoints: Checkpoints | BestInMemory,
    log: MetricsLog,
    evaluate: Callable[[Any], Mapping[str, float]],
    unusual: Sequence[str] = (),
) -> TrainState:
    """Run ``train_step`` from ``state.step`` to ``config.steps``, or to an early stop.

    Metrics are read one step late, so that the device never waits for the host. A state is saved
    only after the step that made it is known to be finite, and after its evaluation: only a
    signal saves without, and the resumed run evaluates first.

    Args:
        state: Where to start; its buffers are consumed.
        train_step: From ``make_train_step``.
        batches: Positioned where ``state`` left off.
        config: How long, how often to log, evaluate and save, what is best and when to stop early.
        steps_per_epoch: Steps of a pass over the data, for the log.
        flops: Floating-point operations of a step, for the log.
        checkpoints: Where to save; if there are any, ``state`` is restored from them.
        log: Receives "train" and "eval" values.
        evaluate: Maps parameters to metrics, every ``config.eval_every`` steps.
        unusual: Settings far from usual, to name if training diverges.

    Returns:
        The state after the last step, which is also saved; with ``config.best`` that of the best
        evaluation.

    Raises:
        Diverged: The loss, a gradient or a parameter became NaN or infinite.
        Interrupted: SIGINT or SIGTERM came; the state was saved first.
        SaveFailed: A checkpoint or the log could not be written.
        InputError: No evaluation gives ``config.best``.
    """
    pending: tuple[int, Metrics] | None = None
    step = int(state.step)
    timer, trace = StepTimer(flops), StepTrace(config.profile, step)

    def diverged(step: int, what: str) -> Diverged:
        checkpoints.wait()  # a newer one may be on its way
        return Diverged(
            f"training diverged at step {step}: {what}; {checkpoints.last_good()}; "
            f"{advice(step, unusual)}"
        )

    def flush_metrics() -> None:
        """Read the newest metrics and refuse to go on from numbers that are not finite."""
        nonlocal pending
        if pending is None:
            return
        (step, metrics), pending = pending, None
        on_host = jax.device_get(metrics)
        nonfinite = on_host.pop(NONFINITE)
        values = {name: float(value) for name, value in on_host.items()}
        timer.end_step(*(values.pop(name) for name in ("tokens", "targets", "pairs")))
        if not np.isfinite([values["loss"], values["gradient_norm"]]).all():
            raise diverged(step, first_nonfinite(values, nonfinite, state.params))
        if step % config.log_every == 0 or step == config.steps:
            values |= timer.take() | {"epoch": step / steps_per_epoch}
            with checkpoints.writing():
                log.write("train", step, values)
            log.notify()

    def evaluate_and_log(step: int, stop: StopRequest) -> None:
        """Evaluate, unless a signal comes: then the resumed run does."""
        values = stop.unless_stopped(lambda: evaluate(state.params))
        if values is None:
            return
        checkpoints.evaluations = checkpoints.evaluations.add(step, values, config.best)
        with checkpoints.writing():
            log.write("eval", step, values)
        log.notify()

    def save() -> None:
        wrong = find_nonfinite(state.params)  # an update can overflow where its gradient is finite
        if wrong is not None:
            raise diverged(step, f"its update is not finite, in {wrong}")
        with checkpoints.writing():
            log.flush()
        checkpoints.save(state, batches)

    def next_batch() -> Batch:
        started = time.perf_counter()
        batch = next(batches)
        loss = None if pending is None else pending[1]["loss"]
        if loss is None or loss.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            timer.wait_for_input(time.perf_counter() - started)
        return batch

    with stop_requests() as stop:
        while True:
            if _is_due(step, config.eval_every, config) and checkpoints.evaluations.last < step:
                flush_metrics()
                evaluate_and_log(step, stop)
                timer.start()
            seen = checkpoints.evaluations
            last, asked = _is_last(step, seen, config), stop.at(step)
            if last or asked or seen.best == step or _is_due(step, config.save_every, config):
                flush_metrics()
                save()
                timer.start()
            if last or asked:
                break
            trace.before(step, state)
            state, metrics = train_step(state, next_batch())
            flush_metrics()
            step += 1
            pending = step, metrics
        trace.end(state)
        checkpoints.wait()
        if not last and stop.signum is not None:
            raise Interrupted(f"stopped; {checkpoints.saved(step)}", stop.signum)
    return state if config.best is None else checkpoints.restore_best(state)


def _is_due(step: int, every: int, config: Training) -> bool:
    return step > 0 and (step % every == 0 or step == config.steps)


def _is_last(step: int, seen: Evaluations, config: Training) -> bool:
    patience_exhausted = config.patience is not None and seen.since_best >= config.patience
    return patience_exhausted or (step == config.steps and seen.last == step)
