"""The dense layer against ``nn.DenseGeneral``."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.models.projection import Projection

X = np.random.default_rng(0).standard_normal((3, 5, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 2**-7)])
@pytest.mark.parametrize(("outputs", "input_axes"), [((7,), 1), ((2, 9), 1), ((7,), 2)])
def test_equals_the_stock_layer(outputs, input_axes, dtype, rtol):
    axis = (-1,) if input_axes == 1 else (-2, -1)
    ours = Projection(outputs, input_axes, use_bias=True, dtype=dtype)
    stock = nn.DenseGeneral(outputs, axis, dtype=dtype)
    params = stock.init(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), X), params)
    params["params"]["bias"] += np.random.default_rng(1).standard_normal(outputs, np.float32)

    def loss(layer, params, x):
        return jnp.sin(layer.apply(params, x)).sum()

    one, other = (jax.value_and_grad(loss, (1, 2))(layer, params, X) for layer in (ours, stock))

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

    jax.tree.map(close, one, other)


def test_the_dtype_of_the_result_is_that_of_the_layer():
    for dtype in ("float32", "bfloat16"):
        layer = Projection((7,), use_bias=True, dtype=dtype)
        params = layer.init(jax.random.key(0), X)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        assert layer.apply(params, X).dtype == dtype
