"""Train a two-layer Llama from scratch on STG_H, the game whose answer is a number.

python -m experiments.train_stg stg_h_tiny

The settings are those of stg_tiny and were not tuned for this game.
"""

import dataclasses

from cat_jax import tasks
from configs import stg_tiny

CONFIG = dataclasses.replace(
    stg_tiny.CONFIG,
    name="stg_h_tiny",
    data=tasks.stg_h(train_records=40_000, test_records=1_000, trace=True),
)
