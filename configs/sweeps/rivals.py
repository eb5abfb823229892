"""Compare other uses of the annotation, and rivals without it: a two-layer Llama on STG.

python -m experiments.sweep rivals

The settings of the sweep toy (a thousand steps), three seeds; nothing was tuned for any method.
"""

from dataclasses import replace

from cat_jax.config import Cell
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

CELLS = [Cell(method, replace(toy.RUN, seed=seed), method) for seed in SEEDS for method in METHODS]
