"""Dense layer that applies a low-rank adapter where the parameters bring one."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.models.precision import add_bias, dot
from cat_jax.models.quantization import Int8Kernel
from cat_jax.types import Array
from pallas_kernels import Partition

dense_init = nn.initializers.lecun_normal()


@struct.dataclass
class LowRank:
    """Adapter of one projection: scale * b(a(dropout(x))) (LoRA, Hu et al. 2021).

    It is a node of the parameter tree, so whatever takes parameters takes adapted ones: decoding,
    attention maps, losses. Outside the scan layers are stacked in front.

    Attributes:
        a: [*inputs, R], float32.
        b: [R, *outputs], float32.
        dropout_key: Key of the dropout mask; None outside training.
        dropout: Dropout probability of the inputs.
        scale: Factor of the output.
    """

    a: Array
    b: Array
    dropout_key: Array | None
    dropout: float = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False)

    def __call__(self, x: Array, dtype: str, *, flat: bool = False) -> Array:
        """Apply the adapter to the last axes of x, in ``dtype``; ``flat`` as in ``dot``."""
        x = x.astype(dtype)
        if self.dropout_key is not None:
            keep = jax.random.bernoulli(self.dropout_key, 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), jnp.zeros((), x.dtype))
        inputs = tuple(range(self.a.ndim - 1))
        inner = dot(x, self.a, inputs, dtype, flat=flat)
        return self.scale * dot(inner, self.b, (0,), dtype, flat=flat)


def has_whole_rows(partition: Partition | None) -> bool:
    """Tell whether a device has all rows of the activations, so that products may be flat."""
    return partition is None or partition.mesh.size == 1


class Projection(nn.Module):
    """Dense layer over the last axes, plus the ``LowRank`` at "lora" beside the kernel, if any.

    Parameters are float32 and named as in ``nn.DenseGeneral``: "kernel" [*inputs, *outputs] and
    "bias" [*outputs]. Frozen ones may be bfloat16, and the kernel an ``Int8Kernel``.

    Attributes:
        outputs: Sizes of the output axes.
        input_axes: Number of input axes.
        use_bias: Whether a bias is added.
        dtype: Dtype of the product and of its result.
        flat: As in ``cat_jax.models.precision.dot``.
    """

    outputs: tuple[int, ...]
    input_axes: int = 1
    use_bias: bool = False
    dtype: str = "float32"
    flat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [*rows, *inputs] to [*rows, *outputs]."""
        inputs = x.shape[x.ndim - self.input_axes :]

        def init_kernel(key: Array) -> Array:
            flat = dense_init(key, (math.prod(inputs), math.prod(self.outputs)))
            return flat.reshape(*inputs, *self.outputs)

        kernel = self.get_variable("params", "kernel")
        if isinstance(kernel, Int8Kernel):
            y = kernel(x, self.dtype)
        else:
            kernel = self.param("kernel", init_kernel)
            y = dot(x, kernel, tuple(range(self.input_axes)), self.dtype, flat=self.flat)
        if self.use_bias:
            y = add_bias(y, self.param("bias", nn.initializers.zeros_init(), self.outputs))
        adapter = self.get_variable("params", "lora")
        return y if adapter is None else y + adapter(x, self.dtype, flat=self.flat)
