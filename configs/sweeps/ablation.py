"""Go from the published loss to the default one, a step at a time: a two-layer Llama on STG.

python -m experiments.sweep ablation

Each row changes one thing of the row before: the loss form (a ratio of attentions, then the log of
the causal mass), the schedule of the weight, what is annotated (whole spans, then values), whether
causes are traced, which heads are guided, and the weight. One row stands beside: the published loss
with another threshold (alpha) of the ratio. Records, model, optimizer and loop are those of
stg_tiny; three seeds.
"""

from dataclasses import replace

from cat_jax.config import PUBLISHED, Cell
from configs import stg_tiny

SEEDS = (0, 1, 2)
START = replace(
    stg_tiny.CONFIG,
    guidance=PUBLISHED,
    data=replace(stg_tiny.CONFIG.data, granularity="span", trace=False),
)
GUIDANCE = (
    ("1-published", {}),
    ("2-log-mass", {"form": "mass_nll"}),
    ("3-constant-weight", {"schedule": "constant"}),
)
DATA = (("4-values", {"granularity": "value"}), ("5-traced", {"trace": True}))
LAST = (("6-every-head", {"scope": "head"}), ("7-weight-10", {"weight": 10.0}))


def _steps():
    run = START
    for section, changes in (("guidance", GUIDANCE), ("data", DATA), ("guidance", LAST)):
        for row, changed in changes:
            run = replace(run, **{section: replace(getattr(run, section), **changed)})
            yield row, run


STRICTER = replace(START, guidance=replace(PUBLISHED, alpha=20.0))

CELLS = [
    *(Cell("0-plain", replace(START, seed=seed), "baseline") for seed in SEEDS),
    *(Cell("1-published-alpha-20", replace(STRICTER, seed=seed), "cat") for seed in SEEDS),
    *(Cell(row, replace(run, seed=seed), "cat") for row, run in _steps() for seed in SEEDS),
]
