"""Gradients of bfloat16 models against sums in float64: no share is rounded before it is added."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cat_jax.models import CausalLM, LoraConfig, ModelConfig, attach_lora, init_lora
from cat_jax.models.embedding import Embedding
from cat_jax.models.precision import add_bias, dot, take
from cat_jax.models.projection import LowRank, Projection

B, T, V, D, F, N, H, G, C, R = 3, 7, 37, 30, 29, 2, 6, 3, 8, 5
ROWS = (40, 50)
SCRIPT = Path(__file__).with_name("sums_across_devices.py")
KERNELS = {  # shape and input axes of every kind of kernel
    "query": ((D, H, C), (0,)),
    "output": ((H, C, D), (0, 1)),
    "mlp": ((D, F), (0,)),
    "tied output": ((V, D), (1,)),
}


def normal(seed, *shape):
    """Float32 numbers that bfloat16 holds exactly."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(jnp.bfloat16).astype(np.float32)


def low(x):
    return jnp.asarray(x, jnp.bfloat16)


def pull_back(function, cotangent, *primals):
    """Value and gradients in float64, the cotangent being bfloat16."""
    value, pull = jax.vjp(function, *primals)
    assert value.dtype == jnp.bfloat16
    gradients = pull(low(cotangent))
    return np.float64(value), [np.asarray(x, np.float64) for x in gradients]


def assert_summed_in_float32(actual, expected, shares):
    """Within float32 rounding of ``shares``, the sum of the absolute values that are added."""
    assert (np.abs(actual - expected) <= 1e-5 * shares).all()


@pytest.mark.parametrize("count", [512, 4096])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_a_token_gets_the_gradient_of_each_occurrence(count, param_dtype):
    table = jnp.ones((V, D), param_dtype)
    tokens = np.full((2, count // 2), 5)
    gradient = jax.grad(lambda table: take(table, tokens, "bfloat16").astype(float).sum())(table)
    assert gradient.dtype == param_dtype
    expected = np.zeros((V, D))
    expected[5] = count
    np.testing.assert_array_equal(np.float64(gradient), expected)


def test_embedding_of_random_repeats():
    table, cotangent = np.float32(np.random.default_rng(0).normal(size=(V, D))), normal(1, *ROWS, D)
    tokens = np.random.default_rng(2).integers(0, V, ROWS)
    embed = Embedding(V, D, "bfloat16")

    def look_up(table):
        return embed.apply({"params": {"embedding": table}}, tokens)

    value, (gradient,) = pull_back(look_up, cotangent, table)
    np.testing.assert_array_equal(value, np.float64(low(table))[tokens])
    expected, shares = np.zeros((2, V, D))
    np.add.at(expected, tokens, np.float64(cotangent))
    np.add.at(shares, tokens, np.abs(cotangent))
    assert_summed_in_float32(gradient, expected, shares)


@pytest.mark.parametrize("kind", KERNELS)
def test_product(kind):
    """Kernels whose digits bfloat16 does not hold; the product is that of the rounded ones."""
    shape, axes = KERNELS[kind]
    inputs = [shape[axis] for axis in axes]
    outputs = [size for axis, size in enumerate(shape) if axis not in axes]
    kernel = np.float32(np.random.default_rng(0).normal(size=shape))
    x, cotangent = normal(1, *ROWS, *inputs), normal(2, *ROWS, *outputs)
    value, (x_gradient, gradient) = pull_back(
        lambda x, kernel: dot(x, kernel, axes, "bfloat16"), cotangent, x, kernel
    )

    flat_x, flat_g = x.reshape(2000, -1).astype(float), cotangent.reshape(2000, -1).astype(float)
    rounded = np.float64(low(kernel))
    if axes[0] == 1:
        rounded = rounded.T
    rounded = rounded.reshape(flat_x.shape[1], flat_g.shape[1])
    exact = flat_x @ rounded
    np.testing.assert_allclose(value.reshape(exact.shape), exact, rtol=2**-8, atol=1e-3)
    exact = flat_g @ rounded.T
    np.testing.assert_allclose(x_gradient.reshape(exact.shape), exact, rtol=2**-8, atol=1e-3)
    exact, shares = flat_x.T @ flat_g, np.abs(flat_x).T @ np.abs(flat_g)
    if axes[0] == 1:
        exact, shares = exact.T, shares.T
    assert_summed_in_float32(gradient, exact.reshape(shape), shares.reshape(shape))


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_bias(param_dtype):
    x, bias, cotangent = normal(0, *ROWS, H, C), normal(1, H, C), normal(2, *ROWS, H, C)
    value, (_, gradient) = pull_back(add_bias, cotangent, low(x), jnp.asarray(bias, param_dtype))
    np.testing.assert_array_equal(value, np.float64(low(x.astype(float) + bias)))
    exact = cotangent.astype(float).sum((0, 1))
    if param_dtype == "bfloat16":  # rounded once
        np.testing.assert_allclose(gradient, exact, rtol=2**-8)
    else:
        assert_summed_in_float32(gradient, exact, np.abs(cotangent).sum((0, 1)))


def test_low_rank():
    """Small integers, so that bfloat16 holds x a and g b exactly, and only sums can be off."""
    rng = np.random.default_rng(0)
    x, a = rng.integers(-2, 3, (*ROWS, H, C)), rng.integers(-1, 2, (H, C, R))
    a[1:] = 0
    b, cotangent = rng.integers(-1, 2, (R, D)), rng.integers(-2, 3, (*ROWS, D))

    def apply(a, b):
        return LowRank(a, b, None, 0.0, 2.0)(jnp.float32(x), "bfloat16")

    value, (a_gradient, b_gradient) = pull_back(apply, cotangent, jnp.float32(a), jnp.float32(b))
    flat_x, flat_a = x.reshape(2000, H * C), a.reshape(H * C, R)
    flat_g = cotangent.reshape(2000, D)
    assert max(np.abs(flat_x @ flat_a).max(), 2 * np.abs(flat_g @ b.T).max()) <= 256
    np.testing.assert_array_equal(value.reshape(2000, D), 2 * flat_x @ flat_a @ b)
    np.testing.assert_array_equal(b_gradient, 2 * (flat_x @ flat_a).T @ flat_g)
    np.testing.assert_array_equal(a_gradient.reshape(H * C, R), 2 * flat_x.T @ (flat_g @ b.T))
    for gradient in (a_gradient, b_gradient):
        assert (gradient != np.float64(low(gradient))).any()


@pytest.mark.parametrize("changes", [{"qkv_bias": True}, {"qk_norm": True, "tie_embeddings": True}])
def test_every_gradient_of_a_model_has_more_digits_than_bfloat16(changes):
    config = ModelConfig(V, D, F, N, H, G, C, dtype="bfloat16", **changes)
    model, lora = CausalLM(config), LoraConfig(R, 8.0, 0.0)
    tokens_BT = np.random.default_rng(0).integers(0, 5, (B, T))  # each occurs several times
    params = model.init(jax.random.key(0), tokens_BT)["params"]
    adapters = jax.tree.map(lambda x: x + 0.1, init_lora(jax.random.key(1), config, lora))

    @jax.jit
    def gradients(params, adapters):
        def loss(params, adapters):
            attached = attach_lora(params, adapters, lora)
            logits_BTV, _ = model.apply({"params": attached}, tokens_BT)
            return jnp.square(logits_BTV - 1).mean()

        return jax.grad(loss, (0, 1))(params, adapters)

    for tree in gradients(params, adapters):
        for path, gradient in flatten_dict(tree, sep="/").items():
            values = np.asarray(gradient)[np.abs(gradient) > 0]
            assert values.size > gradient.size // 10, path
            assert np.mean(values == np.float32(low(values))) < 0.6, path


def test_forward_mode_of_float32():
    tokens_BT = np.random.default_rng(0).integers(0, V, (B, T))
    embed, project = Embedding(V, D), Projection((H, C), use_bias=True)
    embed_params = embed.init(jax.random.key(0), tokens_BT)
    project_params = project.init(jax.random.key(1), jnp.zeros((1, D)))

    def apply(embed_params, project_params):
        x_BTD = embed.apply(embed_params, tokens_BT)
        y_BTD = LowRank(jnp.ones((H, C, R)), jnp.ones((R, D)), None, 0.0, 1.0)(
            project.apply(project_params, x_BTD), "float32"
        )
        return embed.apply(embed_params, y_BTD, method="attend")

    primals = embed_params, project_params
    value, tangent = jax.jvp(apply, primals, primals)
    # Three factors: the tangent along the parameters themselves is three times the value.
    np.testing.assert_allclose(tangent, 3 * value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_sums_across_devices():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    done = subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exact\n"
