"""Small runs of ``fit`` on toys, for tests that compare them."""

import jax
import numpy as np

from cat_jax.config import Guidance, LoraConfig, Optimizer, Scratch, Training
from cat_jax.testing import toy_model, toy_records
from cat_jax.train.fit import fit

TRAIN = Training(steps=5, batch_size=7, max_length=19, log_every=2, eval_every=2, save_every=2)
RECORDS = toy_records(count=23)
LORA = LoraConfig(rank=2, dropout=0.0, targets=("q_proj", "down_proj"))
SCRATCH = Scratch(width=12, mlp_width=20, num_layers=2, num_heads=2, num_kv_heads=1)
FAST = Optimizer(learning_rate=0.05, warmup=0.0)


def run(model=None, records=RECORDS, train=TRAIN, **options):
    options = {"guidance": Guidance(), "optimizer": FAST} | options
    return fit(toy_model() if model is None else model, records, train=train, **options)


def copied(params):
    return jax.tree.map(lambda x: np.array(x), params)


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def assert_differ(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)
