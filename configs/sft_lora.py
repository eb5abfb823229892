"""Train low-rank adapters on your own records, on next tokens alone.

python -m experiments.finetune sft_lora --model.name Qwen/Qwen2.5-7B --data.train train.jsonl
"""

import dataclasses

import tyro

from cat_jax.config import Optimizer, PretrainedLora
from configs import sft

CONFIG = dataclasses.replace(
    sft.CONFIG,
    name="sft_lora",
    model=PretrainedLora(name=tyro.MISSING),
    optimizer=Optimizer(learning_rate=2e-4),
)
