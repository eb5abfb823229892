"""Fine-tune a pretrained Llama or Qwen on your own records, on next tokens alone.

python -m experiments.finetune sft --model.name Qwen/Qwen2.5-1.5B --data.train train.jsonl
"""

import tyro

from cat_jax import tasks
from cat_jax.config import Optimizer, Pretrained, RunConfig, Training

CONFIG = RunConfig(
    name="sft",
    model=Pretrained(name=tyro.MISSING),
    data=tasks.files(train=tyro.MISSING),
    optimizer=Optimizer(learning_rate=1e-5),
    train=Training(
        steps=250, batch_size=16, max_length=512, log_every=5, eval_every=50, save_every=50
    ),
)
