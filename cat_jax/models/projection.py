"""A dense layer that takes a low-rank adapter where the parameters bring one."""

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


class Projection(nn.DenseGeneral):
    """``nn.DenseGeneral``, plus the ``LowRank`` that stands as "lora" beside the kernel, if any."""

    def __call__(self, inputs: Array) -> Array:
        """Projects the axes ``axis`` of the inputs."""
        outputs = super().__call__(inputs)
        adapter = self.get_variable("params", "lora")
        return outputs if adapter is None else outputs + adapter(inputs, self.dtype)
