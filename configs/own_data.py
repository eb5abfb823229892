"""Compare plain and guided fine-tuning of a pretrained Llama or Qwen on your own records.

python -m experiments.compare own_data --model.name Qwen/Qwen2.5-1.5B
    --data.train train.jsonl --data.iid test.jsonl --data.ood shifted.jsonl
"""

import dataclasses

import tyro

from cat_jax import tasks
from configs import cat

CONFIG = dataclasses.replace(
    cat.CONFIG,
    name="own_data",
    data=tasks.files(train=tyro.MISSING, iid=tyro.MISSING, ood=tyro.MISSING),
    train=dataclasses.replace(cat.CONFIG.train, max_length=256),
)
