"""A figure of scores with their intervals."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cat_jax.analysis.figures import METHODS, NORMAL, SMALL, SPLIT_NAMES
from cat_jax.errors import InputError
from cat_jax.evaluation.statistics import Score


def scores_figure(scores: Mapping[str, Mapping[str, Score]], title: str = "") -> Figure:
    """Draw shares of right answers with their 95 % intervals, method beside method.

    Args:
        scores: By method, the score of each test set; the test sets of the first are drawn.
        title: Title of the figure.

    Raises:
        InputError: There is no method, or no test set.
    """
    if not scores or not next(iter(scores.values())):
        raise InputError("there is nothing to draw: give at least one method with one test set")
    names = list(next(iter(scores.values())))
    height = 1.0 + 0.28 * len(names) * len(scores)
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axis = figure.add_subplot()
    for number, (method, found) in enumerate(scores.items()):
        _draw(axis, number, len(scores), method, [found.get(name) for name in names])
    shown = [SPLIT_NAMES.get(name, name).replace("$", r"\$") for name in names]
    axis.set_yticks(range(len(names)), shown, fontsize=NORMAL)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% right, with 95 % interval", fontsize=NORMAL)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title.replace("$", r"\$"), fontsize=NORMAL)
    if len(scores) > 1:
        figure.legend(loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def _draw(axis: Axes, number: int, count: int, method: str, found: list[Score | None]) -> None:
    """Draw one method: a point for each test set, below that of the method before."""
    offset = 0.7 * ((number + 0.5) / count - 0.5)
    known = [(place, score) for place, score in enumerate(found) if score is not None]
    values = 100 * np.array([[s.value, s.value - s.low, s.high - s.value] for _, s in known])
    axis.errorbar(
        values[:, 0],
        [place + offset for place, _ in known],
        xerr=np.maximum(values[:, 1:].T, 0),
        fmt="o",
        markersize=4,
        capsize=2,
        color=METHODS[number % len(METHODS)],
        label=method.replace("$", r"\$"),
    )
