"""Figures of results: accuracy by row, and across random causal worlds by what these are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from cat_jax.analysis.figures import METHODS as COLOURS
from cat_jax.compare.sweep import Row
from experiments.results_data import Results

SPLITS = {"iid": ("IID", "o", "#8C8C8C"), "ood": ("OOD", "o", "#0072B2")}
WORLDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "strength of the spurious links": lambda data: float(np.mean(data["strength"])),
    "causes": lambda data: data["causes"],
    "noise": lambda data: data["noise"],
    "order of the factors": lambda data: data["order"],
    "wording": lambda data: data["wording"],
}
"""What a world is, from the settings of its task."""


def draw_figures(results: Results, folder: Path) -> dict[str, str]:
    """Draw the figures of one file of results; return their captions by file."""
    ran = [row for row in results.rows if row.scores.get("ood") and not row.name.startswith("rule")]
    worlds = [row for row in ran if row.settings.get("data", {}).get("task") == "scm"]
    figures: dict[str, tuple[Figure, str]] = {}
    if worlds:
        file = f"results-{results.name}.svg"
        figures[file] = worlds_figure(worlds), "Accuracy out of distribution by kind of world"
    elif len(ran) > 1:
        file = f"results-{results.name}.svg"
        figures[file] = accuracy_figure(ran), "Accuracy with 95 % intervals"
    folder.mkdir(parents=True, exist_ok=True)
    for file, (figure, _) in figures.items():
        with rc_context({"svg.hashsalt": results.name}):  # the same bytes again
            figure.savefig(folder / file, format="svg", metadata={"Date": None})
    return {file: caption for file, (_, caption) in figures.items()}


def accuracy_figure(rows: list[Row]) -> Figure:
    """Draw accuracy in and out of distribution, a line per row, with intervals."""
    figure = Figure((7.0, 1.0 + 0.32 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for offset, (name, (title, marker, colour)) in zip((-0.13, 0.13), SPLITS.items(), strict=True):
        for place, row in enumerate(rows):
            score = row.scores.get(name)
            if score is None or score.mean is None:
                continue
            label = title if place == 0 else None
            axis.plot(100 * score.mean, place + offset, marker, color=colour, label=label)
            if score.interval is not None:
                limits = [100 * limit for limit in score.interval]
                axis.plot(limits, [place + offset] * 2, "-", color=colour, linewidth=1.5)
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows], parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("exact match, %")
    axis.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _label(row: Row) -> str:
    return row.title if row.name == row.method else row.name


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
            shares = [100 * (row.scores["ood"].mean or 0.0) for _, row in mine]
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
