"""Fine-tune a pretrained Llama or Qwen on the Spurious Token Game, size L.

python -m experiments.train_stg stg_qwen --model.name Qwen/Qwen2.5-1.5B

All parameters are trained in float32 with AdamW: about 16 bytes each, 25 GB for 1.5 billion.
Learning rate and guidance are starting points; they were not tuned at this size.
"""

from cat_jax import tasks
from cat_jax.config import Guidance, Optimizer, Pretrained, RunConfig, Training

CONFIG = RunConfig(
    name="stg_qwen",
    model=Pretrained(name="Qwen/Qwen2.5-1.5B"),
    data=tasks.stg(trace=True),
    guidance=Guidance(weight=1.0, form="mass_nll", scope="head"),
    optimizer=Optimizer(learning_rate=1e-5),
    train=Training(steps=250, batch_size=64, log_every=5, eval_every=50, save_every=50),
)
