"""A dense layer that takes a low-rank adapter where the parameters bring one."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.linen.dtypes import promote_dtype

from cat_jax.types import Array


@struct.dataclass
class LowRank:
    """What an adapter adds to a projection: scale * b(a(dropout(x))) (LoRA, Hu et al. 2021).

    It travels inside the parameters, so that whatever takes parameters takes adapted ones:
    decoding, attention maps, losses. Layers are stacked in front outside the scan.

    Attributes:
        a: [*inputs, R], float32.
        b: [R, *outputs], float32.
        dropout_key: of the mask, None outside training.
        dropout: share of the inputs to drop.
        scale: of the sum.
    """

    a: Array
    b: Array
    dropout_key: Array | None
    dropout: float = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False)

    def __call__(self, x: Array, dtype: str | None) -> Array:
        """Applies the adapter to the trailing axes of x, in ``dtype``."""
        x, a, b = promote_dtype(x, self.a, self.b, dtype=dtype)
        if self.dropout_key is not None:
            keep = jax.random.bernoulli(self.dropout_key, 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), jnp.zeros((), x.dtype))
        return self.scale * jnp.tensordot(jnp.tensordot(x, a, a.ndim - 1), b, 1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(axes: tuple[tuple[int, ...], tuple[int, ...]], x: Array, kernel: Array) -> Array:
    """``dot_general`` whose gradient for the kernel is summed in float32, across devices too.

    Left to itself it takes the kernel's dtype, and devices would add up rounded shares. ``axes``
    are the last ones of x and the first ones of the kernel.
    """
    return jax.lax.dot_general(x, kernel, (axes, ((), ())))


def _product_forward(
    axes: tuple[tuple[int, ...], tuple[int, ...]], x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _product(axes, x, kernel), (x, kernel)


def _product_backward(
    axes: tuple[tuple[int, ...], tuple[int, ...]],
    saved: tuple[Array, Array],
    gradient: Array,
) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - len(axes[0])))
    outputs = tuple(range(len(rows), gradient.ndim))
    kernel_outputs = tuple(range(len(axes[1]), kernel.ndim))
    x_gradient = jax.lax.dot_general(gradient, kernel, ((outputs, kernel_outputs), ((), ())))
    kernel_gradient = jax.lax.dot_general(
        x, gradient, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return x_gradient, kernel_gradient.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


def _dot_general(x: Array, kernel: Array, dimension_numbers: Any, **_: Any) -> Array:
    if kernel.dtype == jnp.float32:  # sums are float32, and forward mode stays possible
        return jax.lax.dot_general(x, kernel, dimension_numbers)
    axes, _batch = dimension_numbers
    return _product(axes, x, kernel)


class Projection(nn.DenseGeneral):
    """``nn.DenseGeneral``, plus the ``LowRank`` that stands as "lora" beside the kernel, if any."""

    dot_general: Any = _dot_general

    def __call__(self, inputs: Array) -> Array:
        """Projects the axes ``axis`` of the inputs."""
        outputs = super().__call__(inputs)
        adapter = self.get_variable("params", "lora")
        return outputs if adapter is None else outputs + adapter(inputs, self.dtype)
