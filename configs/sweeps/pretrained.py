"""Tune SmolLM2-135M-Instruct on STG_M: the main methods and controls, three seeds.

python -m experiments.sweep pretrained

Settings of stg_smollm2. A step of 64 records takes 0.09 s on an H200. The untuned model does not
depend on the seed but for its test records, and is asked once.
"""

from dataclasses import replace

from cat_jax.config import Cell, RunConfig
from configs import stg_smollm2

UNTUNED = ("untuned", "few_shot")
METHODS = (
    "baseline",
    "cat",
    "cat_published",
    "cat_published_div",
    "random_spans",
    "counterfactual",
)
SEEDS = (0, 1, 2)


def cells(run: RunConfig) -> list[Cell]:
    """Return a run by every method and seed."""
    return [
        *(Cell(method, run, method) for method in UNTUNED),
        *(Cell(method, replace(run, seed=seed), method) for seed in SEEDS for method in METHODS),
    ]


CELLS = cells(stg_smollm2.CONFIG)
