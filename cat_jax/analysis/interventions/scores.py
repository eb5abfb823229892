"""What a model says of the right answers under interventions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cat_jax.analysis.interventions.marks import MarkedExample, TracedRecords
from cat_jax.evaluation.likelihood import AnswerScore

Pick = Callable[[TracedRecords], list[MarkedExample]]
"""Picks right answers, or the alternatives that there are, of records."""
Measure = Callable[[Pick], AnswerScore]
"""Scores what is picked: arrays [E, R] for E interventions."""


@dataclass(frozen=True)
class AnswerScores:
    """Scores of the right answers of R records, under one or many interventions.

    Attributes:
        log_prob: Log-probability of the right answer, its end included, in nats, [..., R].
        difference: The same minus that of the alternative, [..., R]; NaN where there is none.
        is_right: Whether greedy decoding gives the right answer: each of its tokens is the most
            probable one, given those before it, [..., R].
    """

    log_prob: np.ndarray
    difference: np.ndarray
    is_right: np.ndarray

    @property
    def preference(self) -> np.ndarray:
        """Return the difference, and of records without an alternative the log-probability."""
        return np.where(np.isnan(self.difference), self.log_prob, self.difference)

    def __getitem__(self, index: Any) -> "AnswerScores":
        return AnswerScores(self.log_prob[index], self.difference[index], self.is_right[index])

    def reshape(self, *shape: int) -> "AnswerScores":
        """Return the scores with other leading axes."""
        records = self.log_prob.shape[-1]
        arrays = (self.log_prob, self.difference, self.is_right)
        return AnswerScores(*(x.reshape(*shape, records) for x in arrays))


def score_traced(traced: TracedRecords, measure: Measure) -> AnswerScores:
    """Score right answers and, where there are some, their alternatives: arrays [E, R]."""
    log_ER, is_right_ER = (np.asarray(x) for x in measure(lambda records: records.right))
    log_ER, difference_ER = log_ER.astype(float), np.full(log_ER.shape, np.nan)
    numbers = [n for n, rival in enumerate(traced.rivals) if rival is not None]
    if numbers:

        def rivals(records: TracedRecords) -> list[MarkedExample]:
            return [x for x in (records.rivals[n] for n in numbers) if x is not None]

        difference_ER[:, numbers] = log_ER[:, numbers] - measure(rivals).log_prob_B
    return AnswerScores(log_ER, difference_ER, is_right_ER)


def join(parts: Iterable[AnswerScore], records: int) -> AnswerScore:
    """Join the scores of batches, [E, B] each, without what filled up the last one: [E, R]."""
    fields: Any = zip(*map(jax.device_get, parts), strict=True)
    joined: Any = (np.concatenate(x, axis=1)[:, :records] for x in fields)
    return AnswerScore(*joined)
