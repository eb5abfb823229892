"""How the weight of the guidance loss falls during training."""

import jax.numpy as jnp
import optax

from cat_jax.config import Schedule


def guidance_weight(
    schedule: Schedule, weight: float, *, rate: float, steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Returns gamma as a function of the step, counted from 0.

    ``exponential`` is the paper's: weight * exp(-rate * epoch), epochs counted from 0 and gamma
    constant within one (CAT, Han et al., EMNLP 2025). ``linear`` and ``cosine`` reach 0 at
    ``steps``.
    """
    if schedule == "exponential":
        return lambda step: weight * jnp.exp(-rate * (jnp.asarray(step) // steps_per_epoch))
    if schedule == "linear":
        return optax.linear_schedule(weight, 0.0, steps)
    if schedule == "cosine":
        return optax.cosine_decay_schedule(weight, steps)
    if schedule == "constant":
        return optax.constant_schedule(weight)
    raise ValueError(f"schedule is one of exponential, linear, cosine, constant, not {schedule!r}")
