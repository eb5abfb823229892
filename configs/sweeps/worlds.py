"""Compare plain, CAT and random spans across twenty random causal worlds.

python -m experiments.sweep worlds

Each world is a random kind of causal model (``cat_jax.tasks.random_scm``) whose answer is one of
two, so that accuracy means the same in all; a two-layer Llama from scratch, one seed. Guidance and
optimizer are those of scm_tiny, not tuned for any world. ``python -m experiments.report_results``
draws accuracy out of distribution against strength of the spurious links, causes, noise, order and
wording. Vocabulary and length differ from world to world, so each compiles two train steps: the
plain one, and the guided one of the other two methods.
"""

from collections.abc import Sequence
from dataclasses import replace

from cat_jax.config import Cell
from cat_jax.tasks import random_scm
from configs import scm_tiny

DRAWS = 20
EDITS = {"shuffled": ("spurious", "reorder"), "fixed": ("spurious",)}
"""Of a world of fixed order a model from scratch knows no word but in its place."""
METHODS = ("baseline", "cat", "random_spans")
TRAIN = replace(scm_tiny.CONFIG.train, steps=1_000, eval_every=1_000, save_every=500, log_every=50)


def draw_cells(draws: Sequence[int], seeds: Sequence[int], methods: Sequence[str]) -> list[Cell]:
    """Return a cell for each draw, seed and method, those of one draw and seed side by side."""
    cells = []
    for draw in draws:
        world = random_scm(
            draw,
            label="binary",
            shifts=("ood",),
            train_records=16_000,
            test_records=500,
            trace=True,
        )
        for seed in seeds:
            run = replace(scm_tiny.CONFIG, data=world, train=TRAIN, seed=seed)
            cells += [
                Cell(f"world-{draw:02}-{method}", run, method, interventions=EDITS[world.order])
                for method in methods
            ]
    return cells


def CELLS() -> list[Cell]:  # noqa: N802, the name that every sweep has
    """Draw the worlds: seconds, so not at import."""
    return draw_cells(range(DRAWS), seeds=(0,), methods=METHODS)
