"""RMSNorm and SwiGLU.

What is cheap to compute is computed again in the backward pass, so that a layer leaves its inputs
there and not every step in between.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cat_jax.models.config import ModelConfig
from cat_jax.models.projection import Projection, has_whole_rows
from cat_jax.types import Array
from pallas_kernels import Partition


@partial(jax.checkpoint, static_argnums=2, prevent_cse=False)
def rms_normalize(x_BTD: Array, scale_D: Array, eps: float) -> Array:
    """Scale x to unit root mean square over its last axis, in float32, then by ``scale_D``."""
    x_32 = x_BTD.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x_32), axis=-1, keepdims=True) + eps)
    return ((x_32 * inverse) * jnp.expand_dims(scale_D, range(x_32.ndim - 1))).astype(x_BTD.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang & Sennrich 2019)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """Normalize over the last axis."""
        scale_D = self.param("scale", nn.initializers.ones_init(), (x_BTD.shape[-1],))
        return rms_normalize(x_BTD, scale_D, self.config.norm_eps)


@partial(jax.checkpoint, prevent_cse=False)
def _gated(gate: Array, up: Array) -> Array:
    return nn.silu(gate) * up


class SwiGLU(nn.Module):
    """Feed-forward block: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    config: ModelConfig
    partition: Partition | None = None

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """Map [B, T, D] to [B, T, D]."""
        config, flat = self.config, has_whole_rows(self.partition)

        def project(name: str, width: int):
            return Projection((width,), dtype=config.dtype, flat=flat, name=name)

        gate_BTF = project("gate", config.mlp_width)(x_BTD)
        up_BTF = project("up", config.mlp_width)(x_BTD)
        return project("down", config.width)(_gated(gate_BTF, up_BTF))
