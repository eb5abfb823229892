"""Ask how much annotation CAT needs, and how wrong it may be: a two-layer Llama on STG.

python -m experiments.sweep annotations_tiny

The settings of the sweep toy (a thousand steps), three seeds. 2 % of its records are 800.
"""

from cat_jax.config import method_cells
from configs.sweeps import toy

METHODS = (
    "baseline",
    "cat_annotated_2",
    "cat_annotated_10",
    "cat_annotated_50",
    "cat_missing_20",
    "cat_missing_50",
    "cat_wrong_20",
    "cat_wrong_50",
    "cat",
)
SEEDS = (0, 1, 2)

CELLS = method_cells(toy.RUN, METHODS, SEEDS)
