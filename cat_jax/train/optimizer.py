"""The optimizer of all runs."""

from functools import lru_cache
from typing import Any

import jax
import optax

from cat_jax.config import Optimizer

VECTORS = ("scale", "bias")
"""Last names of the parameters that are vectors in every layer: norm scales and biases."""
LEAST_FACTORED = 64
"""Adafactor factors over two axes of at least this size: those of a head are often 64."""


@lru_cache(maxsize=32)
def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Return the optimizer after clipping, with the configured learning rate over ``steps``.

    Equal settings give the same object: with it, steps share their compiled program.

    Weight decay is of matrices and embeddings, LoRA's factors among them, unless
    ``config.decay_all`` asks for all.
    """
    rate = learning_rate(config, steps)
    mask = None if config.decay_all else decayed
    of_both: dict[str, Any] = {
        "b2": config.b2,
        "mu_dtype": config.mu_dtype,
        "weight_decay": config.weight_decay,
        "mask": mask,
    }
    clip = optax.clip_by_global_norm(config.clip)
    if config.name == "adamw":
        return optax.chain(clip, optax.adamw(rate, **of_both))
    if config.name == "lion":
        return optax.chain(clip, optax.lion(rate, **of_both))
    return optax.chain(
        clip,
        # In the order of Shazeer & Stern (2018); optax.adafactor would not scale the decay.
        optax.scale_by_factored_rms(min_dim_size_to_factor=LEAST_FACTORED),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(rate),
    )


def moment_bytes(config: Optimizer) -> int:
    """Return the bytes of optimizer state per parameter; Adafactor's rows and columns are small."""
    first = 2 if config.mu_dtype == "bfloat16" else 4
    return {"adamw": first + 4, "lion": first, "adafactor": 0}[config.name]


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
