"""RMSNorm, rotary positions and SwiGLU: the maths as functions, modules only hold parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.models.config import ModelConfig, RopeScaling
from cat_jax.models.projection import Projection
from cat_jax.types import Array, Float, Int


def rms_normalize(x_BTD: Array, scale_D: Array, eps: float) -> Array:
    """Scales x to unit root mean square over its last axis, in float32, then by ``scale_D``."""
    x_32 = x_BTD.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x_32), axis=-1, keepdims=True) + eps)
    return ((x_32 * inverse) * jnp.expand_dims(scale_D, range(x_32.ndim - 1))).astype(x_BTD.dtype)


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """Angle per position of every pair of components, float32 [C / 2].

    ``theta ** (-2 c / C)`` (RoFormer, Su et al. 2021), slowed by ``config.rope_scaling``. Steps are
    rounded to float32 as in torch, where the checkpoints come from: an ulp times a late position
    is an angle.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    powers = np.float64(np.float32(config.rope_theta)) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    if config.rope_scaling is None:
        return frequencies
    return slow_frequencies(frequencies, config.rope_scaling)


def slow_frequencies(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Divides the frequencies of long wavelengths, keeps short ones, blends those between.

    The rule is that of Llama 3.1 (``rope_type: llama3``).
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths = np.float32(2 * np.pi) / frequencies
    turns = scaling.original_max_positions / wavelengths
    kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1)
    return (1 - kept) * frequencies / np.float32(scaling.factor) + kept * frequencies


def rotate(
    x_BTHC: Float[Array, "B T H C"], positions_BT: Int[Array, "B T"], frequencies: np.ndarray
) -> Float[Array, "B T H C"]:
    """Rotary position embedding in the half-split layout of Llama and Qwen.

    Component c of the first half turns with component c of the second half by the angle
    ``position * frequencies[c]``.
    """
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x_BTHC.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTHC.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """Normalises over the last axis."""
        scale_D = self.param("scale", nn.initializers.ones_init(), (x_BTD.shape[-1],))
        return rms_normalize(x_BTD, scale_D, self.config.norm_eps)


class SwiGLU(nn.Module):
    """Feed-forward block: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        """Maps [B, T, D] to [B, T, D]."""
        config = self.config

        def project(name: str, width: int):
            return Projection((width,), dtype=config.dtype, name=name)

        gate_BTF = project("gate", config.mlp_width)(x_BTD)
        up_BTF = project("up", config.mlp_width)(x_BTD)
        return project("down", config.width)(nn.silu(gate_BTF) * up_BTF)
