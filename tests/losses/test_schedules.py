"""How gamma falls, against the formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.losses.schedules import guidance_weight


def gamma_at(schedule, steps, rate=0.7):
    gamma = guidance_weight(schedule, 3.0, rate=rate, steps=20, steps_per_epoch=6)
    return [float(gamma(jnp.int32(step))) for step in steps]


def test_exponential_is_constant_within_an_epoch():
    assert gamma_at("exponential", [0, 5]) == [3.0, 3.0]
    np.testing.assert_allclose(
        gamma_at("exponential", [6, 11, 12]),
        [3 * math.exp(-0.7), 3 * math.exp(-0.7), 3 * math.exp(-1.4)],
        rtol=1e-6,
    )


def test_linear_cosine_and_constant():
    np.testing.assert_allclose(gamma_at("linear", [0, 5, 20]), [3.0, 2.25, 0.0], atol=1e-6)
    half = 1.5 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(gamma_at("cosine", [0, 5, 20]), [3.0, half, 0.0], atol=1e-6)
    assert gamma_at("constant", [0, 19]) == [3.0, 3.0]


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="not 'step'"):
        guidance_weight("step", 1.0, rate=1.0, steps=1, steps_per_epoch=1)
