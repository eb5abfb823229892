"""Trains a two-layer Llama from scratch on the Spurious Token Game, in minutes on a laptop.

python -m experiments.train_stg

On two CPU cores about 3 minutes. Over seeds 0, 1 and 2: plain 99.5 % IID and 71.4 % OOD, CAT
100.0 % and 99.9 %. With --guidance.weight 3 --train.steps 2500, seed 2 stopped at 88 % OOD.
"""

from cat_jax.config import Experiment, GeneratedData, Guidance, Optimizer, Scratch, Training

CONFIG = Experiment(
    name="stg_tiny",
    data=GeneratedData(game="stg", train_rows=40_000, test_rows=1_000, trace=True),
    model=Scratch(),
    guidance=Guidance(weight=10.0, form="mass_nll", scope="head"),
    optimizer=Optimizer(learning_rate=3e-3, b2=0.98),
    train=Training(steps=3_000, batch_size=64, log_every=20, eval_every=100, save_every=500),
)
