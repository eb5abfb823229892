"""What the evaluations of a run have said so far: which was the best, and how long ago."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cat_jax.config import Training
from cat_jax.errors import InputError


@dataclass(frozen=True)
class Evaluations:
    """Stored in every checkpoint, so that a resumed run judges as one that was never stopped.

    Attributes:
        last: step of the newest evaluation.
        best: step of the best one; None before the first and where no metric is chosen.
        value: of the metric there.
        since_best: evaluations after the best one.
    """

    last: int = 0
    best: int | None = None
    value: float | None = None
    since_best: int = 0

    def add(self, step: int, values: Mapping[str, float], metric: str | None) -> "Evaluations":
        """With one more evaluation, judged by ``metric`` if it is not None.

        Raises:
            InputError: the evaluation has no such value, or it is NaN.
        """
        if metric is None:
            return replace(self, last=step)
        value = values.get(metric, math.nan)
        if math.isnan(value):
            raise InputError(
                f"train.best names {metric!r}, which evaluations do not give; choose one of "
                f"{', '.join(name for name, value in values.items() if not math.isnan(value))}"
            )
        if self.value is None or is_better(metric, value, self.value):
            return Evaluations(step, step, value)
        return replace(self, last=step, since_best=self.since_best + 1)


def verdict(lines: Iterable[Mapping[str, Any]], config: Training) -> str | None:
    """Which step of a finished run was chosen and why, from its log; None if it is the last."""
    seen = Evaluations()
    for line in lines:
        if line["kind"] == "eval":
            seen = seen.add(line["step"], line, config.best)
    if seen.best is None:
        return None
    early = f"; stopped early after step {seen.last}" if seen.last < config.steps else ""
    return f"parameters of step {seen.best}, the best {config.best} ({seen.value:.4g}){early}"


def is_better(metric: str, value: float, than: float) -> bool:
    """Lower is better for a loss or perplexity, higher for anything else."""
    return value < than if metric.endswith(("loss", "perplexity")) else value > than
