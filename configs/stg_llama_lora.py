"""Trains low-rank adapters of Llama-3.1-8B on the Spurious Token Game, size L.

python -m experiments.train_stg stg_llama_lora --model.name meta-llama/Llama-3.1-8B

Adapters, learning rate, batch and epochs are the defaults of CAT's published code. Its frozen
parameters take 16 GB in bfloat16, 151 million trained ones 2.4 GB with their optimizer state.
Each method leaves its adapter in seed-S/METHOD/adapter, a folder that PEFT loads. Guidance is a
starting point; nothing was tuned at this size.
"""

from cat_jax.config import (
    Experiment,
    GeneratedData,
    Guidance,
    Optimizer,
    PretrainedLora,
    Training,
)

CONFIG = Experiment(
    name="stg_llama_lora",
    data=GeneratedData(game="stg", train_rows=1_600, test_rows=400, trace=True),
    model=PretrainedLora(name="meta-llama/Llama-3.1-8B"),
    guidance=Guidance(weight=1.0, form="mass_nll", scope="head"),
    optimizer=Optimizer(learning_rate=1e-3),
    train=Training(steps=250, batch_size=64, log_every=5, eval_every=50, save_every=50),
)
