"""A run of the real loop, checkpoints and data whose step compiles in no time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cat_jax.config import Training
from cat_jax.data.alignment import Example
from cat_jax.data.batches import training_batches
from cat_jax.losses.objective import denominators
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.divergence import NONFINITE, nonfinite_leaves
from cat_jax.train.loop import train
from cat_jax.train.metrics import MetricsLog, read_metrics
from cat_jax.train.state import TrainState
from cat_jax.train.step import count_tokens
from cat_jax.train.throughput import TIMINGS, StepFlops

CONFIG = Training(steps=24, batch_size=4, log_every=1, eval_every=4, save_every=6)
OPTIMIZER = optax.adam(0.05)


def make_rows():
    tokens = np.random.default_rng(0).integers(0, 50, (18, 3)).astype(np.int32)
    zeros = np.zeros((3, 1), np.uint32)
    return [
        Example(row, np.ones(3, bool), zeros, zeros, zeros[:, 0], zeros[:, 0]) for row in tokens
    ]


@partial(jax.jit, donate_argnums=0)
def toy_step(state, batch):
    """Noise from the seed and the step, as dropout has it; every batch pulls elsewhere."""
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(3), state.step), (50, 1000))

    def loss(params):
        return jnp.mean((params["w"][batch.tokens_BT] - noise[batch.tokens_BT]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    updates, opt_state = OPTIMIZER.update(gradient, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    counts = count_tokens(batch, denominators(batch, None))
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient), **counts}
    metrics[NONFINITE] = nonfinite_leaves(gradient)
    return TrainState(state.step + 1, params, opt_state), metrics


def new_state():
    params = {"w": jax.random.normal(jax.random.key(1), (50, 1000))}
    return TrainState(jnp.int32(0), params, OPTIMIZER.init(params))


def flat(params):
    return {"score": float(jnp.mean(params["w"]))}


class Toy:
    """A run in ``folder``; calling it trains until the end or an exception.

    ``place`` puts the first state on devices; ``log_folder`` is for a process that has its own.
    """

    def __init__(self, folder, config=CONFIG, evaluate=flat, place=lambda x: x, log_folder=None):
        self.folder, self.config, self.evaluate, self.place = folder, config, evaluate, place
        self.log_folder = log_folder or folder
        self.steps, self.evaluated, self.start = [], [], None

    def __call__(self, on_step=lambda step: None, on_save=lambda step: None):
        batches = training_batches(make_rows(), batch_size=4, seed=3)
        checkpoints = Checkpoints(self.folder / "checkpoints", {"a": 1}, keep=self.config.keep)
        state = self.place(new_state())
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state, batches)
        self.checkpoints, self.start = checkpoints, int(state.step)
        resume_step = None if self.start == 0 else self.start
        log = MetricsLog(self.log_folder, resume_step)
        save = checkpoints.save

        def noted_save(state, batches):
            save(state, batches)
            on_save(int(state.step))

        checkpoints.save = noted_save

        def step(state, batch):
            self.steps.append(int(state.step) + 1)
            on_step(self.steps[-1])
            return toy_step(state, batch)

        def evaluate(params):
            self.evaluated.append(self.steps[-1] if self.steps else self.start)
            return self.evaluate(params)

        try:
            return train(
                state,
                step,
                batches,
                config=self.config,
                steps_per_epoch=3,
                flops=StepFlops(1.0, 1.0, 1.0),
                checkpoints=checkpoints,
                log=log,
                evaluate=evaluate,
            )
        finally:
            log.close()
            checkpoints.close()

    def lines(self):
        """The log without times."""
        lines = list(read_metrics(self.log_folder / "metrics.jsonl"))
        return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]

    def saved(self):
        return sorted(int(p.name) for p in (self.folder / "checkpoints").iterdir())


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)
