"""Compare other uses of the annotation, and rivals without it: a two-layer Llama on STG.

python -m experiments.sweep rivals

The settings of the sweep toy (a thousand steps), three seeds; nothing was tuned for any method.
"""

from cat_jax.config import method_cells
from configs.sweeps import toy

METHODS = (
    "baseline",
    "cat",
    "attention_dropout",
    "input_gradient",
    "named_causes",
    "wrong_prior",
    "group_reweighting",
)
SEEDS = (0, 1, 2)

CELLS = method_cells(toy.RUN, METHODS, SEEDS)
