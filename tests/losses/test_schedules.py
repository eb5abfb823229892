"""How gamma falls, against the formulas."""

import math

import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("linear", optax.linear_schedule(3.0, 0.0, 20)),
        ("cosine", optax.cosine_decay_schedule(3.0, 20)),
        ("exponential", optax.exponential_decay(3.0, 6, math.exp(-0.7), staircase=True)),
    ],
)
def test_schedules_are_those_of_optax(schedule, theirs):
    steps = [0, 1, 5, 6, 13, 19, 20, 33]
    expected = [float(theirs(step)) for step in steps]
    np.testing.assert_allclose(gamma_at(schedule, steps), expected, rtol=2e-6, atol=1e-7)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="not 'step'"):
        guidance_weight("step", 1.0, rate=1.0, steps=1, steps_per_epoch=1)
