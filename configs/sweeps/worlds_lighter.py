"""Guide with a tenth of the weight in twenty random causal worlds: plain fine-tuning and CAT.

python -m experiments.sweep worlds_lighter

Settings of the sweep worlds_seeds but for a weight of guidance of 1 in the place of 10; three
seeds. The cells of plain fine-tuning are those of that sweep.
"""

from dataclasses import replace

from cat_jax.config import Cell
from configs.sweeps.worlds import DRAWS, draw_cells

METHODS = ("baseline", "cat")


def lighter(cell: Cell) -> Cell:
    """Return a guided cell with a weight of 1."""
    if cell.method == "baseline" or cell.run.guidance is None:
        return cell
    return replace(cell, run=replace(cell.run, guidance=replace(cell.run.guidance, weight=1.0)))


def CELLS() -> list[Cell]:  # noqa: N802, the name that every sweep has
    """Draw the worlds."""
    return [lighter(cell) for cell in draw_cells(range(DRAWS), seeds=(0, 1, 2), methods=METHODS)]
