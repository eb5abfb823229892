"""Maps of effects by layer and head, or by layer and position, as matplotlib ``Figure`` objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cat_jax.errors import InputError
from cat_jax.types import Float

CELL, SMALL_CELL, SMALL, NORMAL, LARGE = 0.42, 0.16, 8, 9, 11
SIDE_BY_SIDE = 3
MOST_WRITTEN = 200
"""Cells of a panel up to which each has its value written into it."""


@dataclass(frozen=True)
class Panel:
    """Values by layer, and what their columns are.

    Attributes:
        values: [N, columns]; NaN is left blank.
        columns: Names of the columns; None numbers them, as heads.
        unit: What a value is, beside the colour bar.
        rows: Names of the rows, the lowest first; None numbers them, as layers.
    """

    values: Float[np.ndarray, "N X"]
    columns: Sequence[str] | None = None
    unit: str = ""
    rows: Sequence[str] | None = None


def layer_figure(panels: Mapping[str, Panel], title: str = "") -> Figure:
    """Draw a map for each panel, the first layer below; all panels of a unit share their colours.

    Red is below zero and blue above, and zero is white. Values by layer and head are, for example,
    means over records of what ``knock_out`` gives, ``Patching.restored`` or
    ``CausalMass.by_head_NH``.

    Args:
        panels: By title.
        title: Title of the figure.

    Raises:
        InputError: There is no panel, or one without values or with other columns than named.
    """
    _check(panels)
    layers, columns = np.max([panel.values.shape for panel in panels.values()], axis=0)
    beside = min(len(panels), SIDE_BY_SIDE)
    below = -(-len(panels) // beside)
    # Cells without a written value need less room.
    cell = CELL if layers * columns <= MOST_WRITTEN else SMALL_CELL
    size = beside * max(3.2, 1.6 + cell * columns), below * max(2.2, 1.3 + cell * layers)
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(below, beside, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (name, panel) in zip(axes, panels.items(), strict=False):
        limit = _limit(panels, panel.unit)
        image = _draw(axis, panel, limit)
        axis.set_title("\n".join(wrap(name, 34)), loc="left", fontsize=NORMAL, parse_math=False)
        bar = figure.colorbar(image, ax=axis, fraction=0.06, pad=0.02)
        if not _is_signed(panels, panel.unit):
            bar.ax.set_ylim(0, limit)
        bar.set_label(panel.unit, fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        axis.set_ylabel("layer", fontsize=NORMAL)
    if title:
        title = "\n".join(wrap(title, int(9 * size[0])))
        figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE, parse_math=False)
    return figure


def _check(panels: Mapping[str, Panel]) -> None:
    if not panels:
        raise InputError("no panel to draw")
    for name, panel in panels.items():
        shape = panel.values.shape
        if len(shape) != 2 or not panel.values.size:
            raise InputError(f"{name!r} has values of shape {shape}; give [layers, columns]")
        for what, names, size in zip(
            ("rows", "columns"), (panel.rows, panel.columns), shape, strict=True
        ):
            if names is not None and len(names) != size:
                raise InputError(f"{name!r} names {len(names)} {what} of {size}")


def _limit(panels: Mapping[str, Panel], unit: str) -> float:
    same = [np.abs(x.values[np.isfinite(x.values)]) for x in panels.values() if x.unit == unit]
    return max(float(np.concatenate([x.ravel() for x in same]).max(initial=0.0)), 1e-6)


def _is_signed(panels: Mapping[str, Panel], unit: str) -> bool:
    return any((panel.values < 0).any() for panel in panels.values() if panel.unit == unit)


def _draw(axis: Axes, panel: Panel, limit: float):
    image = axis.imshow(
        panel.values,
        cmap="RdBu",
        norm=Normalize(-limit, limit),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    layers, columns = panel.values.shape
    if panel.rows is None:
        axis.set_yticks(range(0, layers, max(1, layers // 12)))
    else:
        axis.set_yticks(range(layers), panel.rows, parse_math=False)
    if panel.columns is None:
        axis.set_xticks(range(0, columns, max(1, columns // 16)))
        axis.set_xlabel("head", fontsize=NORMAL)
    else:
        axis.set_xticks(range(columns), panel.columns, rotation=30, ha="right", parse_math=False)
    axis.tick_params(labelsize=SMALL, length=0)
    axis.spines[:].set_visible(False)
    if panel.values.size <= MOST_WRITTEN:
        for (n, x), value in np.ndenumerate(panel.values):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.65 * limit else "black"
                text = f"{value:.2f}"
                text = text.removeprefix("-") if not float(text) else text
                axis.text(x, n, text, ha="center", va="center", fontsize=6.5, color=colour)
    return image
