"""Train four times as long in random causal worlds in which CAT was worse than plain fine-tuning.

python -m experiments.sweep worlds_longer

Settings of the sweep worlds but for 4,000 steps, in the three worlds in which its interval out of
distribution lay below that of plain fine-tuning. They were chosen by that result: this asks for its
reason, and is no estimate of how often it happens.
"""

from dataclasses import replace

from cat_jax.config import Cell
from configs.sweeps.worlds import TRAIN, draw_cells

DRAWS = (6, 9, 12)
METHODS = ("baseline", "cat")
LONGER = replace(TRAIN, steps=4_000, eval_every=1_000)


def CELLS() -> list[Cell]:  # noqa: N802, the name that every sweep has
    """Draw the worlds."""
    cells = draw_cells(DRAWS, seeds=(0,), methods=METHODS)
    return [replace(cell, run=replace(cell.run, train=LONGER)) for cell in cells]
