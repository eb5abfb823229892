"""Compare across random causal worlds on three seeds, with counterfactual augmentation beside.

python -m experiments.sweep worlds_seeds

The worlds and settings of the sweep worlds. ``counterfactual`` knows how to intervene: what it
reaches is an upper reference, not a rival with the same knowledge.
"""

from cat_jax.config import Cell
from configs.sweeps.worlds import DRAWS, METHODS, draw_cells


def CELLS() -> list[Cell]:  # noqa: N802, the name that every sweep has
    """Draw the worlds."""
    return draw_cells(range(DRAWS), seeds=(0, 1, 2), methods=(*METHODS, "counterfactual"))
