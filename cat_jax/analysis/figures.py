"""Figures of a comparison, as matplotlib ``Figure`` objects without global state.

The colours are those of Okabe & Ito (2008), which people with any common colour vision tell
apart. Text from data is drawn literally: a "$" in it starts no formula.
"""

import io
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cat_jax.errors import InputError
from cat_jax.files import write_bytes
from cat_jax.types import Bool, Float

KINDS = {"causal": "#0072B2", "spurious": "#D55E00", "other": "#8C8C8C"}
TEXT = KINDS | {"other": "#595959"}
METHODS = ("#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4F24", "#785EF0")
"""Colours of training curves, none of which the other figure uses for a kind of token."""
STYLES = {"solid": "-", "dashed": "--", "dotted": ":", "dash-dotted": "-."}
SPLIT_NAMES = {"iid": "IID", "ood": "OOD"}
SHARES = {"attention_on_causes": "causes", "attention_on_spurious_words": "spurious words"}

History = Mapping[str, Sequence[Mapping[str, float]]]
"""By method, one dict per evaluation."""

LABEL_LENGTH = 20
LABEL_GAP = 0.08
FIGURE_SPACE = "\u2007"
SMALL, NORMAL, LARGE = 8, 9, 11
FORMATS = (".png", ".pdf", ".svg")


def answer_attention_figure(
    tokens: Sequence[str],
    attention: Mapping[str, Float[np.ndarray, " T"]],
    causal: Bool[np.ndarray, " T"],
    spurious: Bool[np.ndarray, " T"],
    title: str = "Attention of the row that predicts the answer",
) -> Figure:
    """Draw the attention of the row that predicts the answer, one bar chart per method.

    After the figure of CAT (Han et al., EMNLP 2025). The panels share a scale that ends at the
    largest bar other than the first: pretrained models put most attention on their first token
    (the attention sink). Where that bar is cut, its value is written beside it.

    Args:
        tokens: Text of each of T tokens.
        attention: By method, attention of the row averaged over layers and heads, [T].
        causal: Which tokens the answer depends on, [T].
        spurious: Which tokens only correlate with it, [T].
        title: Title of the figure.

    Raises:
        InputError: No method, lengths that differ, or a token both causal and spurious.
    """
    _check_row(tokens, attention, causal, spurious)
    members = {"causal": causal, "spurious": spurious, "other": ~(causal | spurious)}
    kinds = [kind for t in range(len(tokens)) for kind in KINDS if members[kind][t]]
    width = max(7.0, 2.3 + 0.165 * len(tokens))
    figure = Figure((width, 1.9 + 1.35 * len(attention)), layout="constrained")
    axes = figure.subplots(len(attention), sharex=True, sharey=True, squeeze=False)[:, 0]
    top = 1.08 * max(row[1:].max(initial=1e-3) for row in attention.values())
    for axis, (method, row) in zip(axes, attention.items(), strict=True):
        _draw_row(axis, method, row, [KINDS[kind] for kind in kinds], top)
        _write_shares(axis, {kind: row[where].sum() for kind, where in members.items()})
    _label_tokens(axes[-1], tokens, kinds)
    title = "\n".join(wrap(title, int(11 * width)))
    figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE, parse_math=False)
    return figure


def training_curves_figure(history: History, splits: Sequence[str] = ("iid", "ood")) -> Figure:
    """Draw accuracy per test split, and causal mass, over the steps of training.

    Quantities without any value are left out, and so is a panel without any curve.

    Args:
        history: By method, entries with "step" and values between 0 and 1 of the splits and of
            "causal_mass"; values that are missing or NaN are skipped. Entries of one step are
            seeds: drawn are their mean and a band from smallest to largest. ``RunResult.history``
            may stand here as it is.
        splits: Test splits to draw, each in a line style of its own.

    Raises:
        InputError: There is nothing to draw: no method, or no value of any quantity.
    """
    styles = dict(zip(splits, cycle(STYLES), strict=False))
    drawn = {split: style for split, style in styles.items() if _measured(history, split)}
    described = ", ".join(f"{_split_name(split)} {style}" for split, style in drawn.items())
    panels = {
        f"Accuracy ({described})": {split: STYLES[style] for split, style in drawn.items()},
        "Attention on causal tokens": {"causal_mass": "-"},
    }
    panels = {title: lines for title, lines in panels.items() if _measured(history, *lines)}
    if not panels:
        raise InputError(
            f"no training history to draw: no entry has a value of {', '.join(splits)} or "
            "causal_mass"
        )
    figure = Figure((5.5 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        _draw_curves(axis, history, lines)
        axis.set_title(title, loc="left", fontsize=LARGE, parse_math=False)
    return figure


def attention_curves_figure(
    history: History, title: str = "Attention of the queries that predict the answer"
) -> Figure:
    """Draw attention on causes (solid) and on spurious words (dashed) over the steps of training.

    Args:
        history: By method, entries with "step" and values of the evaluator ``attention_shares``, as
            in ``training_curves_figure``.
        title: Title of the figure.

    Raises:
        InputError: No entry has a value of either.
    """
    if not _measured(history, *SHARES):
        raise InputError(
            f"no training history to draw: no entry has a value of {' or '.join(SHARES)}; train "
            "with evaluators=[attention_shares(...)]"
        )
    figure = Figure((6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    _draw_curves(axis, history, dict(zip(SHARES, STYLES.values(), strict=False)))
    axis.set_title(title, loc="left", fontsize=LARGE, parse_math=False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, PDF or SVG by the suffix of its path, whole or not at all.

    Raises:
        InputError: The path has another suffix, or is a folder.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in FORMATS:
        raise InputError(f"{os.fspath(path)!r} names no figure; end it in {', '.join(FORMATS)}")
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=suffix[1:])
    write_bytes(path, content.getvalue())


def _check_row(tokens, attention, causal, spurious) -> None:
    if not attention:
        raise InputError("no method to draw the attention of")
    for name, row in {**attention, "causal": causal, "spurious": spurious}.items():
        if row.shape != (len(tokens),):
            raise InputError(f"{name!r} has shape {row.shape}, but there are {len(tokens)} tokens")
    if (causal & spurious).any():
        raise InputError(f"token {int((causal & spurious).argmax())} is both causal and spurious")


def _label_tokens(axis: Axes, tokens: Sequence[str], kinds: Sequence[str]) -> None:
    axis.set_xticks(range(len(tokens)), [shown_token(token) for token in tokens], parse_math=False)
    axis.tick_params(axis="x", rotation=90, labelsize=SMALL)
    for label, kind in zip(axis.get_xticklabels(), kinds, strict=True):
        label.set_color(TEXT[kind])
        label.set_fontweight("normal" if kind == "other" else "bold")


def shown_token(token: str) -> str:
    """Return a token as a short label in one line, with invisible characters made visible."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in token.strip(" "))
    text = text or "␣" * len(token)
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"


def _draw_row(axis: Axes, method: str, row: np.ndarray, colours: Sequence[str], top: float) -> None:
    axis.bar(range(len(row)), row, color=colours, width=0.8)
    axis.set(xlim=(-0.7, len(row) - 0.3), ylim=(0, top))
    if row[0] > top:
        axis.text(0.55, top, f"↑{row[0]:.0%}", va="top", fontsize=SMALL, color=colours[0])
    axis.set_title(method, loc="left", fontsize=NORMAL, fontweight="bold", parse_math=False)
    axis.tick_params(axis="x", length=0)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    _plain(axis)


def _write_shares(axis: Axes, shares: Mapping[str, float]) -> None:
    """Draw a legend that also says how much attention each kind of token has."""
    handles = [
        Patch(color=KINDS[kind], label=f"{share:.0%}".rjust(4, FIGURE_SPACE) + f" {kind}")
        for kind, share in shares.items()
    ]
    axis.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        fontsize=NORMAL,
        handlelength=0.8,
        handletextpad=0.2,
        handleheight=0.8,
    )


def _split_name(split: str) -> str:
    return (SPLIT_NAMES | SHARES).get(split, split)


def _measured(history: History, *quantities: str) -> bool:
    """Return whether any entry has a value of one of the quantities."""
    return any(_over_seeds(entries, q) for entries in history.values() for q in quantities)


def _draw_curves(axis: Axes, history: History, styles: Mapping[str, str]) -> None:
    ends = []
    for (method, entries), colour in zip(history.items(), cycle(METHODS), strict=False):
        for quantity, style in styles.items():
            points = _over_seeds(entries, quantity)
            if not points:
                continue
            steps, mean, low, high = np.array(points).T
            axis.plot(steps, mean, style, color=colour, marker=".", markersize=4, clip_on=False)
            axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            name = method if len(styles) == 1 else f"{method}, {_split_name(quantity)}"
            ends.append((mean[-1], name, colour))
    axis.set_xlabel("step")
    axis.set_xlim(right=max(e["step"] for entries in history.values() for e in entries))
    axis.set_ylim(max(axis.get_ylim()[0], 0), min(axis.get_ylim()[1], 1.01))
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    _plain(axis)
    _label_ends(axis, ends)


def _over_seeds(
    entries: Sequence[Mapping[str, float]], quantity: str
) -> list[tuple[float, float, float, float]]:
    """Return step, mean, smallest and largest value, for each step that has values."""
    by_step = defaultdict(list)
    for entry in entries:
        value = entry.get(quantity, math.nan)
        if not math.isnan(value):
            by_step[entry["step"]].append(value)
    return [(step, sum(v) / len(v), min(v), max(v)) for step, v in sorted(by_step.items())]


def _label_ends(axis: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write the name and last value of each curve at its right end."""
    low, high = axis.get_ylim()
    ends = sorted(ends)
    heights = [(value - low) / (high - low) for value, _, _ in ends]
    for end, height, place in zip(ends, heights, _spread(heights), strict=True):
        value, name, colour = end
        axis.annotate(
            f"{value:.0%} {name}",
            xy=(1.015, height),
            xytext=(1.07, place),
            xycoords="axes fraction",
            va="center",
            color=colour,
            fontsize=NORMAL,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5)},
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """Push ascending heights apart until neighbours are LABEL_GAP from each other."""
    places = list(heights)
    for _ in range(len(places) ** 2):
        for i in range(1, len(places)):
            push = max(0.0, LABEL_GAP - (places[i] - places[i - 1])) / 2
            places[i - 1] -= push
            places[i] += push
    return places


def _plain(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=SMALL)
