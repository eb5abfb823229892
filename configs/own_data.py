"""Fine-tunes a pretrained Llama or Qwen2 on your own annotated JSONL files.

python -m experiments.train_stg own_data --model.name Qwen/Qwen2.5-1.5B
    --data.train train.jsonl --data.iid test.jsonl --data.ood shifted.jsonl
"""

import tyro

from cat_jax.config import Experiment, Guidance, JsonlData, Optimizer, Pretrained, Training

CONFIG = Experiment(
    name="own_data",
    data=JsonlData(train=tyro.MISSING, iid=tyro.MISSING, ood=tyro.MISSING),
    model=Pretrained(name=tyro.MISSING),
    guidance=Guidance(weight=0.3, form="mass_nll", scope="mean"),
    optimizer=Optimizer(learning_rate=1e-5),
    train=Training(steps=250, batch_size=16, log_every=5, eval_every=50, save_every=50),
)
