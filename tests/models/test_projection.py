"""The products of projections, against those of ``nn.DenseGeneral`` and against float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.models.projection import Projection

X = np.random.default_rng(0).standard_normal((3, 5, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 2**-7)])
@pytest.mark.parametrize(("features", "axis"), [(7, -1), ((2, 9), -1), (7, (-2, -1))])
def test_equals_the_stock_layer(features, axis, dtype, rtol):
    ours, stock = (
        kind(features, axis, use_bias=True, dtype=dtype) for kind in (Projection, nn.DenseGeneral)
    )
    params = stock.init(jax.random.key(0), X)

    def loss(layer, params, x):
        return jnp.sin(layer.apply(params, x)).sum()

    for layer in (ours, stock):
        assert jax.tree.map(jnp.shape, layer.init(jax.random.key(0), X)) == jax.tree.map(
            jnp.shape, params
        )
    one, other = (jax.value_and_grad(loss, (1, 2))(layer, params, X) for layer in (ours, stock))

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())

    jax.tree.map(close, one, other)


def test_forward_mode_is_possible():
    layer = Projection(7)
    params = layer.init(jax.random.key(0), X)
    _, tangent = jax.jvp(lambda x: layer.apply(params, x), (X,), (np.ones_like(X),))
    np.testing.assert_allclose(tangent, layer.apply(params, np.ones_like(X)), rtol=1e-5)


def test_the_gradient_of_a_kernel_is_rounded_once():
    """2,000 rows in bfloat16: shares that were rounded before they are added would be 1 % off."""
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((2, 2_000, 6)).astype(jnp.bfloat16)
    kernel = jnp.zeros((6, 6), jnp.float32)
    layer = Projection(6, use_bias=False, dtype=jnp.bfloat16)

    def loss(kernel):
        return (layer.apply({"params": {"kernel": kernel}}, x) * g).sum()

    exact = x.astype(np.float64).T @ g.astype(np.float64)
    ours = np.asarray(jax.grad(loss)(kernel), np.float64)
    assert np.abs(ours - exact).max() <= 2**-8 * np.abs(exact).max()
    products = [
        equation.params["preferred_element_type"]
        for equation in jax.make_jaxpr(jax.grad(loss))(kernel).eqns
        if equation.primitive.name == "dot_general"
    ]
    assert jnp.float32 in products
