"""Ask how much annotation CAT needs, and how wrong it may be: a two-layer Llama on STG.

python -m experiments.sweep annotations_tiny

The settings of the sweep toy (a thousand steps), three seeds. 2 % of its records are 800. The last
rows guide with a weight of 3 and of 1 in the place of 10: does a lighter hand forgive more, and do
few annotations still suffice?
"""

from dataclasses import replace

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
    "wrong_prior",
    "cat",
)
SEEDS = (0, 1, 2)

LIGHTER = (
    "cat_annotated_2",
    "cat_missing_50",
    "cat_wrong_20",
    "cat_wrong_50",
    "wrong_prior",
    "cat",
)
WEIGHTS = (3.0, 1.0)
GUIDANCE = toy.RUN.guidance
assert GUIDANCE is not None

CELLS = [
    *method_cells(toy.RUN, METHODS, SEEDS),
    *(
        replace(cell, row=f"{cell.row}-weight-{weight:g}")
        for weight in WEIGHTS
        for cell in method_cells(
            replace(toy.RUN, guidance=replace(GUIDANCE, weight=weight)), LIGHTER, SEEDS
        )
    ),
]
