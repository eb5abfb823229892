"""The answer of a drawn causal model: a score of its parents, and what is asked about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cat_jax.tasks.causal_model import Values

Form = Literal["linear", "threshold", "product", "lookup"]
"""``linear``: a weighted sum. ``threshold``: a weighted count of parents above their thresholds.
``product``: of all parents. ``lookup``: a table over low, medium and high values of each."""
Label = Literal["binary", "classes", "number"]

HIDDEN = "noise"
"""Name of the hidden factor that is added to the score."""

CLASSES = {
    3: ("Low", "Medium", "High"),
    4: ("Very low", "Low", "High", "Very high"),
    5: ("Very low", "Low", "Medium", "High", "Very high"),
}


@dataclass(frozen=True)
class Answer:
    """From the parents' values to the answer.

    Attributes:
        parents: What the score reads.
        score: The score of their values.
        cuts: Scores between neighbouring classes; none where the answer is a number.
        words: Answers from the lowest class to the highest.
        spread: Standard deviation of the score in distribution.
    """

    parents: tuple[str, ...]
    score: Callable[[Sequence[float]], float]
    cuts: tuple[float, ...]
    words: tuple[str, ...]
    spread: float

    def judge(self, values: Values) -> str:
        """Return the answer; noise that is not among the values is none."""
        score = self.score([values[name] for name in self.parents]) + values.get(HIDDEN, 0.0)
        if not self.words:
            return str(round(score))
        return self.words[sum(score > cut for cut in self.cuts)]


def draw_score(
    form: Form, count: int, rng: np.random.Generator
) -> Callable[[Sequence[float]], float]:
    """Draw a mechanism of ``count`` parents."""
    weights = (rng.integers(2, 6, size=count) * rng.choice([-1, 1], size=count)).tolist()
    if form == "linear":
        return lambda values: sum(w * x for w, x in zip(weights, values, strict=True))
    if form == "threshold":
        bounds = rng.integers(3, 9, size=count).tolist()
        return lambda values: sum(
            w * (x > bound) for w, x, bound in zip(weights, values, bounds, strict=True)
        )
    if form == "product":
        return lambda values: float(np.prod(np.array(values)))
    table = rng.integers(0, 10, size=(3,) * count)
    return lambda values: float(table[tuple(min(2, max(0, int(x) - 1) * 3 // 10) for x in values)])


def make_answer(
    form: Form,
    label: Label,
    classes: int,
    parents: tuple[str, ...],
    sample: Sequence[Values],
    rng: np.random.Generator,
) -> Answer:
    """Draw the answer's mechanism; classes are equally likely in the sample, as far as can be."""
    score = draw_score(form, len(parents), rng)
    scores = np.array([score([row[name] for name in parents]) for row in sample], float)
    words = {"binary": ("Low", "High"), "classes": CLASSES[classes], "number": ()}[label]
    shares = [number / len(words) for number in range(1, len(words))]
    # Half a unit below a whole score: which side it is on does not hang on rounding.
    cuts = tuple(float(np.quantile(scores, share, method="higher")) - 0.5 for share in shares)
    return Answer(parents, score, cuts, words, float(scores.std()))
