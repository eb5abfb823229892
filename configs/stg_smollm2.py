"""Fine-tune SmolLM2-135M-Instruct on the Spurious Token Game, size M, all parameters.

python -m experiments.compare stg_smollm2 --seeds 0 1 2

Learning rate and steps are those of a pilot of one seed on 1,600 records.
"""

from cat_jax import tasks
from cat_jax.config import Guidance, Optimizer, Pretrained, RunConfig, Training

CONFIG = RunConfig(
    name="stg_smollm2",
    model=Pretrained(name="HuggingFaceTB/SmolLM2-135M-Instruct", remat="none"),
    data=tasks.stg(train_records=800, test_records=400, trace=True),
    guidance=Guidance(weight=1.0, form="mass_nll", scope="mean"),
    optimizer=Optimizer(learning_rate=1e-4),
    train=Training(steps=250, batch_size=64, log_every=10, eval_every=250, save_every=250),
)
