"""Schedules of gamma, the weight of the guidance loss."""

from typing import get_args

import jax.numpy as jnp
import optax

from cat_jax.config import Schedule


def guidance_weight(
    schedule: Schedule, weight: float, *, rate: float, steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Return gamma as a function of the step, counted from 0.

    Args:
        schedule: ``exponential`` is CAT's (Han et al., EMNLP 2025): weight * exp(-rate * epoch),
            with epochs from 0 and gamma constant within one. ``linear`` and ``cosine`` reach 0 at
            ``steps``; ``constant`` stays.
        weight: Gamma at step 0.
        rate: Decay rate per epoch (``exponential``).
        steps: Steps of training (``linear``, ``cosine``).
        steps_per_epoch: Steps of an epoch (``exponential``).

    Raises:
        ValueError: An unknown schedule.
    """
    if schedule == "exponential":
        return lambda step: weight * jnp.exp(-rate * (jnp.asarray(step) // steps_per_epoch))
    if schedule == "linear":
        return optax.linear_schedule(weight, 0.0, steps)
    if schedule == "cosine":
        return optax.cosine_decay_schedule(weight, steps)
    if schedule == "constant":
        return optax.constant_schedule(weight)
    raise ValueError(f"schedule is one of {', '.join(get_args(Schedule))}, not {schedule!r}")
