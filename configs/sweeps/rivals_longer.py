"""Train CAT and attention dropout three times as long as the sweep rivals: the same annotation.

python -m experiments.sweep rivals_longer

The settings of stg_tiny (3,000 steps), three seeds. The two were chosen by their results after a
thousand steps.
"""

from cat_jax.config import method_cells
from configs import stg_tiny

METHODS = ("cat", "attention_dropout")
SEEDS = (0, 1, 2)

CELLS = method_cells(stg_tiny.CONFIG, METHODS, SEEDS)
