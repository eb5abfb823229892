"""Train on chains of causes and test on longer, reversed, shuffled and branching ones.

python -m experiments.sweep chains

A two-layer Llama from scratch and the guidance and optimizer of stg_tiny, not tuned for chains;
three seeds. Names that training never showed are no words of its tokenizer, so "renamed" is left
out. The intervention "reorder" says how many answers depend on the order of the premises.
"""

from dataclasses import replace

from cat_jax import tasks
from cat_jax.config import Cell
from configs import stg_tiny

SEEDS = (0, 1, 2)
METHODS = ("baseline", "cat", "random_spans")
RUN = replace(
    stg_tiny.CONFIG,
    model=replace(stg_tiny.CONFIG.model, tokenizer="words"),
    data=tasks.chains(
        train_records=20_000,
        test_records=400,
        shifts=("longer", "reversed", "shuffled", "branching"),
    ),
    train=replace(stg_tiny.CONFIG.train, steps=2_000, eval_every=2_000, save_every=500),
)

CELLS = [
    Cell(method, replace(RUN, seed=seed), method, interventions=("spurious", "reorder"))
    for seed in SEEDS
    for method in METHODS
]
