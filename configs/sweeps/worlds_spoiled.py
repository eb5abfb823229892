"""Spoil the annotations of random causal worlds: 20 and 50 % of the causes missing or wrong.

python -m experiments.sweep worlds_spoiled

The first ten worlds of the sweep worlds and its settings, one seed, between plain fine-tuning and
CAT with all causes.
"""

from cat_jax.config import Cell
from configs.sweeps.worlds import draw_cells

DRAWS = 10
METHODS = (
    "baseline",
    "cat",
    "cat_missing_20",
    "cat_missing_50",
    "cat_wrong_20",
    "cat_wrong_50",
)


def CELLS() -> list[Cell]:  # noqa: N802, the name that every sweep has
    """Draw the worlds."""
    return draw_cells(range(DRAWS), seeds=(0,), methods=METHODS)
