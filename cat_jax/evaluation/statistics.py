"""How sure a score is: intervals for shares and means, and a test between two methods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from cat_jax.errors import InputError


class Interval(NamedTuple):
    """Limits of a confidence interval."""

    low: float
    high: float


class Score(NamedTuple):
    """A mean over records and its 95 % confidence interval.

    Attributes:
        value: The mean.
        low: Lower limit.
        high: Upper limit.
        count: Records, of all seeds together.
    """

    value: float
    low: float
    high: float
    count: int


def share_score(right: Sequence[bool] | np.ndarray) -> Score:
    """Return the share of right answers with Wilson's interval; see ``share_interval``."""
    return Score(float(np.mean(right)), *share_interval(right), len(right))


def mean_score(values_SR: Sequence[Sequence[float] | np.ndarray], *, crossed: bool) -> Score:
    """Return the mean over seeds and records with a bootstrap interval; see ``mean_interval``."""
    value = float(np.mean([np.mean(values_R) for values_R in values_SR]))
    count = sum(map(len, values_SR))
    return Score(value, *mean_interval(values_SR, crossed=crossed), count)


def share_interval(right: Sequence[bool] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Return Wilson's interval for the share of right answers (Wilson 1927).

    Args:
        right: Whether each answer is right, [R].
        confidence: Probability that the interval is to cover.

    Raises:
        InputError: There is no answer, or the confidence is not between 0 and 1.
    """
    right = np.asarray(right, bool)
    _check(right, confidence)
    found = binomtest(int(right.sum()), right.size).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(
    values_SR: Sequence[Sequence[float] | np.ndarray] | np.ndarray,
    confidence: float = 0.95,
    *,
    crossed: bool = True,
    samples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Return the bootstrap interval of a mean over seeds and records.

    Seeds and records are drawn with replacement, and the limits are percentiles of the means of
    the draws: they cover what another set of records and another seed would change. Where every
    seed answers the same records, seeds and records are drawn independently of each other (Owen
    2007, the pigeonhole bootstrap); where each seed has records of its own, they are drawn within
    each drawn seed. Every seed weighs the same. Records of one seed alone are [1, R].

    Args:
        values_SR: Score of each record by each seed's run, [S, R]; the number of records may
            differ between seeds that have their own.
        confidence: Probability that the interval is to cover.
        crossed: Whether the seeds share their records, in the same order.
        samples: Draws.
        seed: Seed of the draws.

    Raises:
        InputError: There is no value, or one that is not finite, or the confidence is not between
            0 and 1, or seeds that share their records have different numbers of them.
    """
    values = [np.asarray(values_R, float) for values_R in values_SR]
    for values_R in values or [np.empty(0)]:
        _check(values_R, confidence)
        if not np.isfinite(values_R).all():
            raise InputError("a mean has no interval where a value is not finite: leave it out")
    if crossed and len({len(values_R) for values_R in values}) > 1:
        raise InputError("seeds that share their records must have as many values each")
    draw = _crossed_means if crossed else _nested_means
    means_N = draw(values, samples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_N, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _crossed_means(
    values: Sequence[np.ndarray], samples: int, rng: np.random.Generator
) -> np.ndarray:
    values_SR = np.stack(values)
    seeds, records = values_SR.shape
    # How often each seed and each record is drawn: means are then products of matrices.
    weights_NS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), samples) / seeds
    weights_NR = rng.multinomial(records, np.full(records, 1 / records), samples) / records
    return ((weights_NS @ values_SR) * weights_NR).sum(-1)


def _nested_means(
    values: Sequence[np.ndarray], samples: int, rng: np.random.Generator
) -> np.ndarray:
    drawn_NS = rng.integers(len(values), size=(samples, len(values)))
    means_NS = np.empty(drawn_NS.shape)
    for number, values_R in enumerate(values):  # a seed that is drawn twice draws records twice
        where = np.nonzero(drawn_NS == number)
        records = len(values_R)
        weights = rng.multinomial(records, np.full(records, 1 / records), len(where[0]))
        means_NS[where] = weights @ values_R / records
    return means_NS.mean(1)


class PairedTest(NamedTuple):
    """Two methods on the same records.

    Attributes:
        only_first: Records that the first alone answers rightly.
        only_second: Records that the second alone answers rightly.
        p_value: Probability of a difference as large if both were equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def paired_test(
    first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray
) -> PairedTest:
    """Compare two methods by the records that one alone answers rightly (McNemar 1947, exact).

    Args:
        first: Whether each answer of the first method is right, [R].
        second: Of the second, on the same records.

    Raises:
        InputError: The numbers of answers differ, or there are none.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or not first.size:
        raise InputError(
            f"a paired test needs answers to the same records, got {first.size} and {second.size}"
        )
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    different = only_first + only_second
    p_value = float(binomtest(only_first, different).pvalue) if different else 1.0
    return PairedTest(only_first, only_second, p_value)


def _check(values: np.ndarray, confidence: float) -> None:
    if not values.size:
        raise InputError("there is no interval without answers")
    if not 0 < confidence < 1:
        raise InputError(f"the confidence must be between 0 and 1, got {confidence}")
