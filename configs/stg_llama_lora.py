"""Train low-rank adapters of Llama-3.1-8B on the Spurious Token Game, size L.

python -m experiments.train_stg stg_llama_lora --model.name meta-llama/Llama-3.1-8B

Adapters, learning rate, batch and epochs are the defaults of CAT's published code. Its frozen
parameters take 16 GB in bfloat16, 151 million trained ones 2.4 GB with their optimizer state.
Each method leaves its adapter in seed-S/METHOD/adapter, a folder that PEFT loads. Guidance is a
starting point; nothing was tuned at this size.
"""

import dataclasses

from cat_jax.config import Optimizer, PretrainedLora
from configs import stg_qwen

CONFIG = dataclasses.replace(
    stg_qwen.CONFIG,
    name="stg_llama_lora",
    model=PretrainedLora(name="meta-llama/Llama-3.1-8B"),
    optimizer=Optimizer(learning_rate=1e-3),
)
