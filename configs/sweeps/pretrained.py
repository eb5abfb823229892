"""Tune SmolLM2-135M-Instruct on STG_M: the main methods and controls, three seeds.

python -m experiments.sweep pretrained

Settings of stg_smollm2. A step of 64 records takes 0.09 s on an H200. The untuned model does not
depend on the seed but for its test records, and is asked once. The loss on plain texts says what is
forgotten.
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
    "attention_dropout",
)
SEEDS = (0, 1, 2)


def cells(run: RunConfig) -> list[Cell]:
    """Return a run by every method and seed."""
    runs = [(method, run) for method in UNTUNED]
    runs += [(method, replace(run, seed=seed)) for seed in SEEDS for method in METHODS]
    return [Cell(method, run, method, text_loss=True) for method, run in runs]


CELLS = cells(stg_smollm2.CONFIG)
