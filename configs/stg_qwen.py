"""Fine-tunes a pretrained Llama or Qwen2 on the Spurious Token Game, size L.

python -m experiments.train_stg stg_qwen --model.name Qwen/Qwen2.5-1.5B

All parameters are trained in float32 with AdamW: about 16 bytes each, 25 GB for 1.5 billion.
Learning rate and guidance are starting points; they were not tuned at this size.
"""

from cat_jax.config import Experiment, GeneratedData, Guidance, Optimizer, Pretrained, Training

CONFIG = Experiment(
    name="stg_qwen",
    data=GeneratedData(game="stg", train_rows=1_600, test_rows=400, trace=True),
    model=Pretrained(name="Qwen/Qwen2.5-1.5B"),
    guidance=Guidance(weight=1.0, form="mass_nll", scope="head"),
    optimizer=Optimizer(learning_rate=1e-5),
    train=Training(steps=250, batch_size=64, log_every=5, eval_every=50, save_every=50),
)
