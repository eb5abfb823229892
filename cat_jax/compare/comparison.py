"""What a comparison found."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

from cat_jax.compare.attention_example import AttentionExample
from cat_jax.compare.methods import Method
from cat_jax.compare.phases import Phases
from cat_jax.evaluation.results import Evaluation
from cat_jax.train.metrics import Line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MethodRun:
    """A trained and evaluated method; its parameters are gone.

    Attributes:
        method: What was trained.
        seed: With which seed.
        evaluation: Answers and scores.
        history: Metrics of the run; empty without training, as below.
        seconds_per_step: Median over the log lines; NaN.
        selected: Which step was selected and why; None if it is the last.
    """

    method: Method
    seed: int
    evaluation: Evaluation
    history: list[Line] = field(default_factory=list)
    seconds_per_step: float = math.nan
    selected: str | None = None

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


@dataclass(eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        settings: How it was made, as JSON values.
        runs: Methods by seed, in the order of training.
        notes: Sentences for the report.
        seconds: Training time of all runs, in whatever processes.
        phases: Where the time of this process went.
        rules: Scores of the task's reference rules, by rule, for each seed.
        example: A record on which methods differ, of the first seed.
    """

    settings: dict[str, Any]
    runs: list[MethodRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    phases: Phases = field(default_factory=Phases)
    rules: list[dict[str, dict[str, float]]] = field(default_factory=list)
    example: AttentionExample | None = None

    def note(self, sentence: str) -> None:
        """Note a sentence and log it."""
        self.notes.append(sentence)
        logger.info("%s", sentence)
