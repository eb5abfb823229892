"""Kernels in int8, for frozen parameters under adapters (QLoRA, arXiv 2305.14314, in 8 bits).

Each output channel is scaled by its largest absolute value and rounded to the nearest of 255
numbers, as LLM.int8() does it to weights (arXiv 2208.07339); activations are not quantised. As in
bitsandbytes the projections of the layers are held like this, and embedding, output matrix, norms
and biases are not.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from cat_jax.models.huggingface.tensors import KERNELS, TensorRule
from cat_jax.types import Array

LARGEST = 127
"""Largest absolute value: -128 has no counterpart."""
SMALLEST = np.finfo(np.float32).tiny
"""Smallest scale whose inverse is finite."""


@struct.dataclass
class Int8Kernel:
    """Kernel of a projection: values * scale.

    It stands in the parameter tree where the kernel would, so whatever takes parameters takes
    quantised ones. Outside the scan layers are stacked in front of both arrays.

    Attributes:
        values: [*inputs, *outputs], int8.
        scale: [*outputs], float32.
    """

    values: Array
    scale: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel that it stands for."""
        return self.values.shape

    def __call__(self, x: Array, dtype: str) -> Array:
        """Map [*rows, *inputs] to [*rows, *outputs] in ``dtype``, by the kernel of one layer.

        Sums are float32 and scaled before they are rounded. The gradient is that of x alone, in
        reverse mode.
        """
        return _scaled_dot(x.astype(dtype), self.values, self.scale)

    def dequantize(self) -> Array:
        """Return the kernel of one layer, float32."""
        return _scaled(self.values.astype(jnp.float32), self.scale)


def channel_scale(kernel: Any, inputs: tuple[int, ...]) -> Any:
    """Return the largest absolute value over the input axes / 127, of a float32 kernel.

    The kernel is of JAX or, like that of ``round_to_int8``, of numpy.
    """
    # Products, as XLA makes of quotients: so all that quantises gives the same bits.
    return abs(kernel).max(inputs) * np.float32(1 / LARGEST)


def round_to_int8(kernel: Any, scale: Any) -> Any:
    """Return kernel / scale rounded to the nearest int8; 0 where the scale is 0 or subnormal."""
    inverse = np.float32(1) / (scale + (scale < SMALLEST))
    return (kernel * inverse).round().clip(-LARGEST, LARGEST).astype(np.int8)


def input_axes(rule: TensorRule) -> tuple[int, ...]:
    """Return the input axes of a projection's kernel, whose layers are stacked in front."""
    _, inputs = rule.hf_axes.split()
    return tuple(range(1, 1 + len(inputs)))


def quantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with the projections of all layers as ``Int8Kernel``.

    All else is that of ``params``, not copied. ``load_pretrained(..., param_dtype="int8")`` gives
    the same, and holds no kernel in more than 8 bits on the way.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    for rule in KERNELS.values():
        if not isinstance(flat[rule.path], Int8Kernel):
            flat[rule.path] = _quantize(input_axes(rule), flat[rule.path])
    return unflatten_dict(flat, sep="/")


def dequantize_layers(kernel: Int8Kernel) -> Array:
    """Return the kernel of all layers, float32."""
    return jax.vmap(Int8Kernel.dequantize)(kernel)


def dequantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in which every ``Int8Kernel`` is a float32 kernel again."""
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    for path, value in flat.items():
        if isinstance(value, Int8Kernel):
            flat[path] = dequantize_layers(value)
    return unflatten_dict(flat, sep="/")


def has_int8(params: Mapping[str, Any]) -> bool:
    """Tell whether parameters hold an ``Int8Kernel``."""
    return any(isinstance(value, Int8Kernel) for value in flatten_dict(params).values())


@partial(jax.jit, static_argnums=0)
def _quantize(inputs: tuple[int, ...], kernel: Array) -> Int8Kernel:
    kernel = kernel.astype(jnp.float32)
    scale = channel_scale(kernel, inputs)
    return Int8Kernel(round_to_int8(kernel, jnp.expand_dims(scale, inputs)), scale)


@jax.custom_vjp
def _scaled_dot(x: Array, values: Array, scale: Array) -> Array:
    inputs = values.ndim - scale.ndim
    rows = x.ndim - inputs
    axes = tuple(range(rows, x.ndim)), tuple(range(inputs))
    # int8 is exact in bfloat16 too.
    y = jax.lax.dot_general(
        x, values.astype(x.dtype), (axes, ((), ())), preferred_element_type=jnp.float32
    )
    return _scaled(y, scale).astype(x.dtype)


def _scaled_dot_forward(x: Array, values: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
    # The int8 values are kept for the backward pass: of what they are cast to, each layer's would.
    return _scaled_dot(x, values, scale), (values, scale)


def _scaled_dot_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, None, None]:
    values, scale = saved
    rows = gradient.ndim - scale.ndim
    axes = tuple(range(rows, gradient.ndim)), tuple(range(values.ndim - scale.ndim, values.ndim))
    scaled = _scaled(gradient.astype(jnp.float32), scale).astype(gradient.dtype)
    return jax.lax.dot_general(scaled, values.astype(gradient.dtype), (axes, ((), ()))), None, None


_scaled_dot.defvjp(_scaled_dot_forward, _scaled_dot_backward)


def _scaled(x: Array, scale: Array) -> Array:
    """Scale the last axes."""
    return x * jnp.expand_dims(scale, tuple(range(x.ndim - scale.ndim)))
