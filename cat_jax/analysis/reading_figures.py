"""Figures of attention in a text, over training, and of what flows along it.

Colours and letters as in ``cat_jax.analysis.figures``. Kinds of tokens differ in the line style of
their frames as well, and shares in lightness, so that all is legible in print.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter

from cat_jax.analysis.attention.named import AttentionMaps
from cat_jax.analysis.attention.text import Kind, Places
from cat_jax.analysis.figures import KINDS, LARGE, NORMAL, SMALL, TEXT, shown_token
from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.analysis.interventions.paths import SpuriousPaths
from cat_jax.errors import InputError
from cat_jax.types import Float

FOLD = 48
"""Tokens side by side; longer texts go on below."""
MOST_TOKENS = 480
FRAMES: Mapping[Kind, tuple[str, Any]] = {
    "cause": (KINDS["causal"], "-"),
    "spurious": (KINDS["spurious"], (0, (2, 1))),
}
"""Colour and line style of the frames around tokens."""
NAMES: Mapping[Kind, str] = {"cause": "causes", "spurious": "spurious words"}
LETTERS: Mapping[Kind, str] = {
    "cause": TEXT["causal"],
    "spurious": TEXT["spurious"],
    "effect": "#000000",
    "other": TEXT["other"],
}


def attention_figure(
    maps: Mapping[str, AttentionMaps], *, answer: Places | None = None, title: str = ""
) -> Figure:
    """Draw where the answer's queries look, one model under the other.

    After the figure of CAT (Han et al., EMNLP 2025): a line for each query, labelled with the token
    that it predicts, a column for each token of the text; causes are framed, and words that only
    correlate with the answer framed with dashes. All panels share a scale, which ends at the
    largest share of a token other than the first: pretrained models put most attention on that
    (the attention sink). A text of more than 48 tokens goes on below.

    Args:
        maps: By model, maps of the same text; layers and heads that are left are averaged over.
        answer: Queries to draw, as ``AttentionMaps.between`` takes them; None takes the answer.
        title: Title of the figure.

    Raises:
        InputError: There is nothing to draw, a value is below 0, texts differ, a text has more than
            480 tokens, or as ``AttentionMaps.of_queries``.
    """
    _check_same_text(maps)
    first = next(iter(maps.values()))
    chosen = {name: x.of_queries(answer) for name, x in maps.items()}
    rows = {name: _over_heads(x) for name, x in chosen.items()}
    for name, row_QK in rows.items():
        if (row_QK < 0).any():
            raise InputError(f"the maps of {name!r} have values below 0, which is no attention")
    end = max(int(x.queries.max()) for x in chosen.values()) + 1  # what follows is not seen
    width = min(FOLD, end)
    folds = [range(start, min(start + FOLD, end)) for start in range(0, end, FOLD)]
    panels, queries = len(folds) * len(maps), len(next(iter(rows.values())))
    size = max(1.9 + 0.21 * width, 6.0), panels * (0.26 * queries + 0.34) + len(folds) + 0.7
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    top = max(max(float(row_QK[:, 1:].max(initial=0.0)) for row_QK in rows.values()), 1e-3)
    images = []
    for axis, (fold, name) in zip(axes, product(folds, maps), strict=True):
        images.append(_draw_fold(axis, chosen[name], rows[name], fold, top))
        axis.set_title(name, loc="left", fontsize=NORMAL, fontweight="bold", parse_math=False)
        axis.set_xlim(-0.5, width - 0.5)
        _label_tokens(axis, first, fold if name == list(maps)[-1] else range(0))
    bar = figure.colorbar(images[0], ax=list(axes), fraction=0.03, pad=0.01, aspect=30)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.set_label(_scale_label(rows, top), fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    _legend(figure, first)
    if title:
        title = "\n".join(wrap(title, int(10 * size[0])))
        figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE, parse_math=False)
    return figure


def mass_change_figure(
    before: Float[np.ndarray, "N H"],
    after: Float[np.ndarray, "N H"],
    *,
    names: tuple[str, str] = ("before", "after"),
    title: str = "Attention of the answer's queries on its causes",
) -> Figure:
    """Draw a score by layer and head of two models, and the difference.

    Args:
        before: Values such as ``HeadScores["causal"]`` or ``CausalMass.by_head_NH``.
        after: Those of the other model.
        names: What the two are called.
        title: Title of the figure.

    Raises:
        InputError: The two are of different shapes.
    """
    if before.shape != after.shape:
        raise InputError(f"{names[0]} has shape {before.shape}, {names[1]} {after.shape}")
    panels = {
        names[0]: Panel(before, unit="share"),
        names[1]: Panel(after, unit="share"),
        f"{names[1]} − {names[0]}": Panel(after - before, unit="change of share"),
    }
    return layer_figure(panels, title)


def leak_figure(
    paths: SpuriousPaths, title: str = "Right or wrong answers that change without some edges"
) -> Figure:
    """Draw which share of answers turns right or wrong when edges are knocked out.

    Columns are the kinds of tokens that are no longer read and those that no longer read them; the
    top row is all layers at once, and each below it one layer alone.

    Args:
        paths: From ``trace_spurious``.
        title: Title of the figure.
    """
    columns = [f"{keys} → {queries}" for keys, queries in paths.knock_outs]
    changed_XE = np.stack(
        [
            np.append(
                found.lost(found.by_layer) + found.gained(found.by_layer),
                found.lost(found.together) + found.gained(found.together),
            )
            for found in paths.knock_outs.values()
        ],
        axis=1,
    )
    rows = [*(str(n) for n in range(len(changed_XE) - 1)), "all"]
    panel = Panel(changed_XE, columns, unit="share of answers", rows=rows)
    return layer_figure({f"{paths.records:,} records": panel}, title)


def _check_same_text(maps: Mapping[str, AttentionMaps]) -> None:
    if not maps:
        raise InputError("no maps to draw")
    first = next(iter(maps.values()))
    if any(x.tokens != first.tokens for x in maps.values()):
        raise InputError("the maps are of different texts; read the same text with every model")
    if len(first.tokens) > MOST_TOKENS:
        raise InputError(f"a figure holds {MOST_TOKENS} tokens, got {len(first.tokens)}")


def _over_heads(maps: AttentionMaps) -> np.ndarray:
    """Return the mean over layers and heads, as far as they are left, [Q, K]."""
    if maps.axes[-2:] != ("queries", "keys"):
        raise InputError(f"a figure of a text needs the axes queries and keys, got {maps!r}")
    return np.asarray(maps).reshape(-1, *maps.values.shape[-2:]).mean(0)


def _draw_fold(axis: Axes, maps: AttentionMaps, row_QK: np.ndarray, fold: range, top: float):
    part_QK = row_QK[:, fold.start : fold.stop]
    image = axis.imshow(
        part_QK, cmap="Greys", vmin=0.0, vmax=top, aspect="auto", interpolation="nearest"
    )
    tokens = [*maps.tokens, ""]
    labels = [f"→ {shown_token(tokens[query + 1])}" for query in maps.queries]
    axis.set_yticks(range(len(labels)), labels, fontsize=SMALL, parse_math=False)
    axis.tick_params(length=0)
    axis.spines[:].set_color("#BFBFBF")
    for kind, (colour, style) in FRAMES.items():
        for run in _runs([maps.kinds[token] == kind for token in fold]):
            corner = (run.start - 0.44, -0.46)
            axis.add_patch(
                Rectangle(corner, len(run) - 0.12, len(labels) - 0.08, fill=False,
                          edgecolor=colour, linestyle=style, linewidth=1.8, clip_on=False)
            )  # fmt: skip
    return image


def _label_tokens(axis: Axes, maps: AttentionMaps, fold: range) -> None:
    labels = [shown_token(maps.tokens[token]) for token in fold]
    axis.set_xticks(range(len(labels)), labels, parse_math=False)
    axis.tick_params(axis="x", rotation=90, labelsize=SMALL)
    for label, token in zip(axis.get_xticklabels(), fold, strict=True):
        kind = maps.kinds[token]
        label.set_color(LETTERS[kind])
        label.set_fontweight("normal" if kind == "other" else "bold")


def _scale_label(rows: Mapping[str, np.ndarray], top: float) -> str:
    largest = max(float(row_QK[:, 0].max()) for row_QK in rows.values())
    cut = f"\n(first token: up to {largest:.0%})" if largest > top else ""
    return f"share of attention{cut}"


def _legend(figure: Figure, maps: AttentionMaps) -> None:
    handles = [
        Patch(fill=False, edgecolor=colour, linestyle=style, linewidth=1.8, label=NAMES[kind])
        for kind, (colour, style) in FRAMES.items()
        if kind in maps.kinds
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower left", ncols=2, fontsize=SMALL, frameon=False
        )


def _runs(chosen: Sequence[bool]) -> list[range]:
    """Return the longest runs of adjacent positions that are chosen."""
    edges = np.flatnonzero(np.diff([False, *chosen, False]))
    return [range(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
