"""The evaluations of a run so far: which was the best, and how many came after it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cat_jax.config import Training
from cat_jax.errors import SettingError


def check_best(best: str | None, measured: Iterable[str]) -> None:
    """Check that ``train.best`` is measured while training.

    Raises:
        SettingError: It is not; what is measured is listed.
    """
    names = list(measured)
    if best is not None and best not in names:
        listed = f"what is measured while training is {', '.join(names)}"
        nothing = "nothing is measured while training; give validation records"
        raise SettingError("train.best", f"is {best!r}, but {listed if names else nothing}")


@dataclass(frozen=True)
class Evaluations:
    """Stored in every checkpoint, so that a resumed run stops early as an uninterrupted one would.

    Attributes:
        last: Step of the newest evaluation.
        best: Step of the best one; None before the first and where no metric is chosen.
        value: Metric of the best one.
        since_best: Evaluations after the best one.
    """

    last: int = 0
    best: int | None = None
    value: float | None = None
    since_best: int = 0

    def add(self, step: int, values: Mapping[str, float], metric: str | None) -> "Evaluations":
        """Return these and one more evaluation, compared by ``metric`` if it is not None.

        Raises:
            SettingError: The evaluation has no such value, or it is NaN.
        """
        if metric is None:
            return replace(self, last=step)
        value = values.get(metric, math.nan)
        if math.isnan(value):
            check_best(metric, [name for name, other in values.items() if not math.isnan(other)])
        if self.value is None or is_better(metric, value, self.value):
            return Evaluations(step, step, value)
        return replace(self, last=step, since_best=self.since_best + 1)


def verdict(lines: Iterable[Mapping[str, Any]], config: Training) -> str | None:
    """Say which step of a finished run was selected, from its history; None if it is the last.

    The evaluation before the first step is there to compare with, and never selected.
    """
    seen = Evaluations()
    for line in lines:
        if line["kind"] == "eval" and line["step"] > 0:
            seen = seen.add(line["step"], line, config.best)
    if seen.best is None:
        return None
    early = f"; stopped early after step {seen.last}" if seen.last < config.steps else ""
    return f"parameters of step {seen.best}, the best {config.best} ({seen.value:.4g}){early}"


def is_better(metric: str, value: float, than: float) -> bool:
    """Compare two values: lower is better for a loss or perplexity, else higher."""
    return value < than if metric.endswith(("loss", "perplexity")) else value > than
