"""Products, look-ups and sums in bfloat16 whose parameter gradients are summed in float32.

Autodiff gives a gradient the dtype of the activations: a token that occurs 4,096 times would get
256 times the gradient of one, and devices would add up rounded shares. Here each parameter is cast
inside the operation, so that its gradient is summed in float32, across devices too, and reaches a
float32 parameter unrounded (a bfloat16 parameter's is rounded once, at the end).

In float32 these are the plain operations of JAX, which forward mode can differentiate too.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.types import Array


def dot(x: Array, kernel: Array, axes: tuple[int, ...], dtype: str, *, flat: bool = False) -> Array:
    """Contract the last axes of x with ``axes`` of the kernel.

    Args:
        x: [*rows, *inputs].
        kernel: [*inputs, *outputs], or [*outputs, *inputs].
        axes: The kernel's input axes, in ascending order.
        dtype: Dtype of the product and of its result.
        flat: Multiply matrices, whose rows are all rows of x: XLA for CPUs then transposes no
            gradients. Of rows that several devices share on several axes, each would gather all.

    Returns:
        [*rows, *outputs].
    """
    x = x.astype(dtype)
    if x.dtype == jnp.float32:
        kernel = jnp.moveaxis(kernel.astype(dtype), axes, range(len(axes)))
        if not flat:
            return _contract(x, kernel, tuple(range(len(axes))))
        rows, outputs = x.shape[: x.ndim - len(axes)], kernel.shape[len(axes) :]
        inputs = math.prod(x.shape[len(rows) :])
        y = x.reshape(-1, inputs) @ kernel.reshape(inputs, -1)
        return y.reshape(*rows, *outputs)
    return _low_dot(axes, kernel.dtype, x, kernel)


def take(table_VD: Array, tokens: Array, dtype: str) -> Array:
    """Look up the rows of a table.

    Args:
        table_VD: [V, D].
        tokens: Indices of any shape; those outside the table give NaN.
        dtype: Dtype of the result.

    Returns:
        [*tokens, D].
    """
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.take(table_VD.astype(dtype), tokens, axis=0)
    return _low_take(jnp.dtype(dtype), table_VD, tokens)


def add_bias(x: Array, bias: Array) -> Array:
    """Add a bias over the last axes of x, in float32; the result has the dtype of x."""
    bias = jnp.expand_dims(bias.astype(jnp.float32), range(x.ndim - bias.ndim))
    return (x.astype(jnp.float32) + bias).astype(x.dtype)


def _contract(x: Array, kernel: Array, axes: tuple[int, ...]) -> Array:
    inputs = tuple(range(x.ndim - len(axes), x.ndim))
    return jax.lax.dot_general(x, kernel, ((inputs, axes), ((), ())))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _low_dot(axes: tuple[int, ...], kernel_dtype: np.dtype, x: Array, kernel: Array) -> Array:
    return _contract(x, kernel.astype(x.dtype), axes)


def _low_dot_forward(
    axes: tuple[int, ...], kernel_dtype: np.dtype, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    # Cast once: of two casts, devices that share the kernel would gather each.
    kernel = kernel.astype(x.dtype)
    return _contract(x, kernel, axes), (x, kernel)


def _low_dot_backward(
    axes: tuple[int, ...],
    kernel_dtype: np.dtype,
    saved: tuple[Array, Array],
    gradient: Array,
) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - len(axes)))
    outputs = tuple(range(len(rows), gradient.ndim))
    kernel_outputs = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    x_gradient = jax.lax.dot_general(gradient, kernel, ((outputs, kernel_outputs), ((), ())))
    # In the kernel's own order of axes: XLA for CPUs fails on the transpose of a mixed product.
    first, second = (x, gradient) if axes[0] == 0 else (gradient, x)
    kernel_gradient = jax.lax.dot_general(
        first, second, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return x_gradient, kernel_gradient.astype(kernel_dtype)


_low_dot.defvjp(_low_dot_forward, _low_dot_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _low_take(dtype: np.dtype, table_VD: Array, tokens: Array) -> Array:
    return jnp.take(table_VD, tokens, axis=0).astype(dtype)


def _low_take_forward(
    dtype: np.dtype, table_VD: Array, tokens: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _low_take(dtype, table_VD, tokens), (table_VD, tokens)


def _low_take_backward(
    dtype: np.dtype, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, None]:
    table_VD, tokens = saved
    zeros_VD = jnp.zeros_like(table_VD, jnp.float32)
    return zeros_VD.at[tokens].add(gradient.astype(jnp.float32)).astype(table_VD.dtype), None


_low_take.defvjp(_low_take_forward, _low_take_backward)
