"""Figures of results: accuracy by row, and across random causal worlds."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from cat_jax.compare.sweep import Row
from experiments.results_data import Results
from experiments.results_worlds import FEWEST, ran_worlds, worlds_figure

LEAST_POINTS = 20
SPLITS = {"iid": ("IID", "o", "#8C8C8C"), "ood": ("OOD", "o", "#0072B2")}


def draw_figures(results: Results, folder: Path) -> dict[str, str]:
    """Draw the figures of one file of results; return their captions by file."""
    ran = [row for row in results.rows if row.scores.get("ood") and not row.name.startswith("rule")]
    worlds = ran_worlds(results.rows)
    figures: dict[str, tuple[Figure, str]] = {}
    if len({str(row.settings["data"]) for row in worlds}) >= FEWEST:
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
    left, right = axis.get_xlim()
    if right - left < LEAST_POINTS:  # tenths of a point are not to look like a difference
        axis.set_xlim(right - LEAST_POINTS, right + 1)
    axis.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _label(row: Row) -> str:
    return row.title if row.name == row.method else row.name
