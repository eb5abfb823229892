"""Try a sweep: a two-layer Llama from scratch on the Spurious Token Game.

python -m experiments.sweep toy

The settings are those of stg_tiny with a third of its steps.
"""

from dataclasses import replace

from cat_jax.config import Cell
from configs import stg_tiny

METHODS = ("baseline", "cat", "random_spans")
RUN = replace(stg_tiny.CONFIG, train=replace(stg_tiny.CONFIG.train, steps=1_000, eval_every=250))

CELLS = [Cell(row=method, run=RUN, method=method) for method in METHODS]
