"""Results across random causal worlds: where a method helps, where it does not, where it hurts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from cat_jax.analysis.figures import METHODS as COLOURS
from cat_jax.compare.sweep import Row
from cat_jax.evaluation.statistics import mean_interval
from cat_jax.markdown import markdown_table

WORLDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "strength of the spurious links": lambda data: float(np.mean(data["strength"])),
    "causes": lambda data: data["causes"],
    "noise": lambda data: data["noise"],
    "order of the factors": lambda data: data["order"],
    "wording": lambda data: data["wording"],
}
"""What a world is, from the settings of its task."""
NUMBERS = ("strength of the spurious links", "causes", "noise")


CAPTION = (
    "*Above*, *below*: worlds in which the 95 % intervals of the table do not overlap. "
    "*Gain*: median over worlds (smallest to largest). *IID − OOD*, and *IID gain* over the first: "
    "means over worlds. *ρ*: Spearman's rank correlation of the gain with what the world is. In "
    "brackets: 95 % intervals of the bootstrap over worlds."
)
FEWEST = 5
"""Worlds from which on they are drawn together, and a rank correlation is given."""


def ran_worlds(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of random causal models that have an accuracy out of distribution."""
    return [
        row for row in rows if _data(row).get("task") == "scm" and _mean(row, "ood") is not None
    ]


def _data(row: Row) -> Mapping[str, Any]:
    return row.settings.get("data", {})


def _mean(row: Row, name: str) -> float | None:
    score = row.scores.get(name)
    return None if score is None else score.mean


def _points(row: Row, name: str) -> float:
    return 100 * (_mean(row, name) or 0.0)


def worlds_summary(rows: Sequence[Row], first: str = "baseline") -> str:
    """Return, in Markdown, in how many worlds each method is above and below the first.

    Intervals that do not overlap ask for more than a paired test on the same records.
    """
    by_world: dict[str, dict[str, Row]] = {}
    for row in ran_worlds(rows):
        by_world.setdefault(row.name.removesuffix(f"-{row.method}"), {})[row.method] = row
    both = [found for found in by_world.values() if first in found]
    methods = dict.fromkeys(method for found in both for method in found if method != first)
    if not methods:
        return ""
    lines = [_first_line([found[first] for found in both])]
    lines += [
        _method_line([(x[first], x[method]) for x in both if method in x]) for method in methods
    ]
    columns = ["", "worlds", "above", "below", "gain, points", "IID − OOD, points"]
    columns += ["IID gain, points", *(f"ρ: {n}" for n in NUMBERS)]
    against = f"Against {both[0][first].title}, out of distribution. {CAPTION}"
    return f"{against}\n\n{markdown_table(columns, lines)}"


def _first_line(rows: Sequence[Row]) -> list[str]:
    return [rows[0].title, str(len(rows)), *"–––", _mean_of(_gap(rows)), *"––––"]


def _method_line(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    gains = [_points(mine, "ood") - _points(first, "ood") for first, mine in pairs]
    above = sum(_apart(first, mine) for first, mine in pairs)
    below = sum(_apart(mine, first) for first, mine in pairs)
    spread = f"{np.median(gains):.1f} ({min(gains):.1f} to {max(gains):.1f})"
    ranks = [
        _rank_correlation([float(WORLDS[n](_data(mine))) for _, mine in pairs], gains)
        for n in NUMBERS
    ]
    gap = _mean_of(_gap([mine for _, mine in pairs]))
    iid = [_points(mine, "iid") - _points(first, "iid") for first, mine in pairs]
    counts = (str(len(pairs)), str(above), str(below))
    return [pairs[0][1].title, *counts, spread, gap, _mean_of(iid), *ranks]


def _gap(rows: Sequence[Row]) -> list[float]:
    return [_points(row, "iid") - _points(row, "ood") for row in rows]


def _mean_of(points: Sequence[float]) -> str:
    """Return the mean over worlds, of several different ones with its interval."""
    mean = f"{np.mean(points):z.1f}"
    if len(points) < FEWEST or len(set(points)) < 2:
        return mean
    low, high = mean_interval([points])
    return f"{mean} [{low:z.1f}, {high:z.1f}]"


def _apart(lower: Row, upper: Row) -> bool:
    low, high = lower.scores["ood"].interval, upper.scores["ood"].interval
    return low is not None and high is not None and low[1] < high[0]


def _rank_correlation(values: Sequence[float], gains: Sequence[float]) -> str:
    if len(values) < FEWEST or len(set(values)) < 2 or len(set(gains)) < 2:
        return "–"

    def rank(x: np.ndarray, y: np.ndarray) -> float:
        if len(set(x)) < 2 or len(set(y)) < 2:
            return 0.0
        found: Any = stats.spearmanr(x, y)
        return float(found.statistic)

    data = (np.asarray(values), np.asarray(gains))
    found = stats.bootstrap(
        data, rank, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval
    return f"{rank(*data):.2f} [{found.low:.2f}, {found.high:.2f}]"


def worlds_figure(rows: list[Row]) -> Figure:
    """Draw accuracy out of distribution of every world and method against what the world is."""
    figure = Figure((3.0 * len(WORLDS), 3.4), layout="constrained")
    axes = figure.subplots(1, len(WORLDS), sharey=True)
    methods = list(dict.fromkeys(row.title for row in rows))
    for axis, (title, attribute) in zip(axes, WORLDS.items(), strict=True):
        found = [attribute(row.settings["data"]) for row in rows]
        ticks = sorted(set(found)) if any(isinstance(x, str) for x in found) else None
        for number, method in enumerate(methods):
            mine = [(x, row) for x, row in zip(found, rows, strict=True) if row.title == method]
            places = [(ticks.index(x) if ticks else x) for x, _ in mine]
            spread = _width(places) * (number - (len(methods) - 1) / 2)
            shares = [_points(row, "ood") for _, row in mine]
            axis.plot(
                np.array(places, float) + spread,
                shares,
                "o",
                markersize=4,
                alpha=0.7,
                color=COLOURS[number % len(COLOURS)],
                label=method,
            )
        if ticks:
            axis.set_xticks(range(len(ticks)), ticks)
        axis.set_xlabel(title)
        axis.grid(axis="y", color="#E5E5E5", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("OOD exact match, %")
    axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _width(places: Sequence[float]) -> float:
    """Return how far methods are drawn from each other at one place."""
    gaps = np.diff(sorted(set(places)))
    return 0.15 * float(gaps.min()) if len(gaps) else 0.05
