"""Schedules of gamma, the weight of the guidance loss."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cat_jax.config import Schedule
from cat_jax.types import Array

SCHEDULES = get_args(Schedule)


def guidance_weight(
    schedule: Schedule, weight: float, *, rate: float, steps: int, steps_per_epoch: int
) -> Partial:
    """Return gamma as a function of the step, counted from 0.

    Schedule and numbers are leaves of the function: a jitted function takes it as an argument, and
    one program serves all of them.

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
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, not {schedule!r}")
    numbers = np.float32(weight), np.float32(rate), np.int32(steps), np.int32(steps_per_epoch)
    return Partial(_gamma, np.int32(SCHEDULES.index(schedule)), *numbers)


def _gamma(
    schedule: Array, weight: Array, rate: Array, steps: Array, steps_per_epoch: Array, step: Array
) -> Array:
    done = jnp.minimum(step / steps, 1.0)
    shares = {
        "exponential": jnp.exp(-rate * (step // steps_per_epoch)),
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * done)),
        "constant": jnp.ones(()),
    }
    return weight * jnp.stack([shares[name] for name in SCHEDULES])[schedule]
