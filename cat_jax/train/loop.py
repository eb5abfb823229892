"""The loop around the pure step: logs, evaluates, saves, and stops when it must."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import grain
import jax
import numpy as np

from cat_jax.config import Training
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.metrics import MetricsLog
from cat_jax.train.signals import stop_requests
from cat_jax.train.state import TrainState
from cat_jax.train.step import Metrics, TrainStep


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite."""


class Interrupted(RuntimeError):
    """A signal asked to stop; the state is saved."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


def train(
    state: TrainState,
    train_step: TrainStep,
    batches: grain.DatasetIterator,
    *,
    config: Training,
    checkpoints: Checkpoints,
    log: MetricsLog,
    evaluate: Callable[[Any], Mapping[str, float]],
    report: Callable[[int, Mapping[str, float]], None],
) -> TrainState:
    """Runs ``train_step`` from ``state.step`` to ``config.steps``.

    Metrics are read one step late, so that the device never waits for the host. A state is saved
    only after the step that made it is known to be finite.

    Args:
        state: where to start; its buffers are consumed.
        train_step: from ``make_train_step``.
        batches: positioned where ``state`` left off.
        config: how long, and how often to log, evaluate and save.
        checkpoints: where to save.
        log: receives "train" and "eval" values.
        evaluate: parameters to values for the log, run every ``config.eval_every`` steps.
        report: called with the step and its metrics at every log line (a progress display).

    Returns:
        The state after the last step, which is also saved.

    Raises:
        Diverged: the loss or gradient became NaN or infinite.
        Interrupted: SIGINT or SIGTERM came; the state was saved first.
    """
    pending: tuple[int, Metrics] | None = None
    seconds: list[float] = []

    def settle() -> None:
        """Reads the newest metrics and refuses to go on from numbers that are not finite."""
        nonlocal pending
        if pending is None:
            return
        (step, metrics), pending = pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite([values["loss"], values["gradient_norm"]]).all():
            raise Diverged(_divergence_message(step, values, checkpoints))
        if step % config.log_every == 0 or step == config.steps:
            values["seconds_per_step"] = median(seconds or [float("nan")])
            seconds.clear()
            log.write("train", step, values)
            report(step, values)

    with stop_requests() as stop:
        for step in range(int(state.step) + 1, config.steps + 1):
            started = time.perf_counter()
            state, metrics = train_step(state, next(batches))
            settle()
            pending = step, metrics
            seconds.append(time.perf_counter() - started)
            if step % config.eval_every == 0 or step == config.steps:
                settle()
                log.write("eval", step, evaluate(state.params))
            if step % config.save_every == 0 or step == config.steps or stop.signum:
                settle()
                checkpoints.save(state, batches)
            if stop.signum and step < config.steps:
                raise Interrupted(f"stopped; step {step} is saved", stop.signum)
    return state


def _divergence_message(step: int, values: Mapping[str, float], checkpoints: Checkpoints) -> str:
    good = checkpoints.latest_step()
    where = "no checkpoint was saved yet"
    if good is not None:
        where = f"the last good checkpoint is {checkpoints.folder / str(good)}"
    return (
        f"training diverged at step {step}: loss {values['loss']}, gradient norm "
        f"{values['gradient_norm']}; {where}; try a lower optimizer.learning_rate"
    )
