"""Train a two-layer Llama from scratch on a game drawn from a random causal model.

python -m experiments.compare scm_tiny --data.model-seed 1

The settings are those of stg_tiny and were not tuned for other models than STG's.
"""

import dataclasses

from cat_jax import tasks
from configs import stg_tiny

CONFIG = dataclasses.replace(
    stg_tiny.CONFIG,
    name="scm_tiny",
    data=tasks.scm(train_records=40_000, test_records=1_000, trace=True),
)
