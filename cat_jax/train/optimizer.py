"""The optimizer of all runs."""

from functools import lru_cache
from typing import Any

import jax
import optax

from cat_jax.config import Optimizer

VECTORS = ("scale", "bias")
"""Last names of the parameters that are vectors in every layer: norm scales and biases."""


@lru_cache(maxsize=32)
def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Return AdamW after clipping, with the configured learning rate over ``steps``.

    Equal settings give the same object: with it, steps share their compiled program.

    Weight decay is of matrices and embeddings, LoRA's factors among them, unless
    ``config.decay_all`` asks for all.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=None if config.decay_all else decayed,
        ),
    )


def learning_rate(config: Optimizer, steps: int) -> optax.Schedule:
    """Return the learning rate of a step, counted from 0: a linear warm-up, then the schedule.

    ``cosine`` is zero at ``steps``, and at least one step comes after its warm-up.
    """
    share = round(config.warmup * steps)
    warmup = share if config.warmup_steps is None else config.warmup_steps
    if config.schedule == "constant":
        rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
        return optax.join_schedules([rise, optax.constant_schedule(config.learning_rate)], [warmup])
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=min(warmup, steps - 1),
        decay_steps=steps,
    )


def decayed(params: Any) -> Any:
    """Tell for every parameter whether it decays: all do but ``VECTORS``.

    The name decides, because layers are stacked: a norm's scale has two axes, a bias three.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in VECTORS, params)
