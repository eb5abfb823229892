"""Rotary position embeddings (RoFormer, Su et al. 2021), and how long contexts rescale them."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.types import Array, Float, Int


@dataclass(frozen=True)
class LinearScaling:
    """All frequencies divided by a factor (position interpolation, Chen et al. 2023).

    Attributes:
        factor: Divisor.
    """

    factor: float

    def __post_init__(self):
        _require_positive(self, "factor")

    def scale(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Return the scaled frequencies, float32 [C / 2]."""
        return frequencies / np.float32(self.factor)

    @property
    def amplitude(self) -> float:
        """Return the factor of cosines and sines."""
        return 1.0


@dataclass(frozen=True)
class Llama3Scaling:
    """Long wavelengths stretched, short ones kept, those between blended (Llama 3.1).

    Attributes:
        factor: Divisor of the frequencies of long wavelengths.
        low_freq_factor: Wavelengths above original_max_positions / low_freq_factor are long.
        high_freq_factor: Wavelengths below original_max_positions / high_freq_factor are short.
        original_max_positions: Context length of pretraining.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def __post_init__(self):
        _require_positive(self, "factor", "low_freq_factor", "original_max_positions")
        if not self.low_freq_factor < self.high_freq_factor:
            raise InputError(f"{self}: low_freq_factor must be less than high_freq_factor")

    def scale(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Return the scaled frequencies, float32 [C / 2]."""
        low, high = self.low_freq_factor, self.high_freq_factor
        wavelengths = np.float32(2 * np.pi) / frequencies
        turns = self.original_max_positions / wavelengths
        kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1)
        return (1 - kept) * frequencies / np.float32(self.factor) + kept * frequencies

    @property
    def amplitude(self) -> float:
        """Return the factor of cosines and sines."""
        return 1.0


@dataclass(frozen=True)
class YarnScaling:
    """NTK-by-parts interpolation with an attention temperature (YaRN, Peng et al. 2023).

    Attributes:
        factor: Divisor of the frequencies of long wavelengths.
        original_max_positions: Context length of pretraining.
        attention_factor: Factor of cosines and sines; None is the paper's 0.1 ln(factor) + 1.
        beta_fast: Pairs that turn more often than this in the original context keep their
            frequency.
        beta_slow: Pairs that turn less often are interpolated; those between are blended.
        truncate: Blend from a whole pair to a whole pair.
    """

    factor: float
    original_max_positions: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self):
        given = () if self.attention_factor is None else ("attention_factor",)
        _require_positive(self, "factor", "original_max_positions", "beta_slow", *given)
        if not self.beta_slow < self.beta_fast:
            raise InputError(f"{self}: beta_slow must be less than beta_fast")

    def scale(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Return the scaled frequencies, float32 [C / 2]."""
        pairs = len(frequencies)

        def pair_of(turns: float) -> float:
            """Return the pair, as a real number, that turns so often in the original context."""
            return pairs * math.log(self.original_max_positions / (turns * 2 * math.pi), theta)

        low, high = pair_of(self.beta_fast), pair_of(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        width = high - low or 0.001  # as in transformers: no division by zero
        stretched = np.clip((np.arange(pairs, dtype=np.float32) - low) / np.float32(width), 0, 1)
        return frequencies / np.float32(self.factor) * stretched + frequencies * (1 - stretched)

    @property
    def amplitude(self) -> float:
        """Return the factor of cosines and sines."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


def _require_positive(scaling: object, *names: str) -> None:
    for name in names:
        value = getattr(scaling, name)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{scaling}: {name} must be a number greater than 0")


def rotary_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> np.ndarray:
    """Return the angle per position of every pair of components, float32 [C / 2].

    They are ``theta ** (-2 c / C)``, rescaled. Steps are rounded to float32 as in torch, where the
    checkpoints come from: an ulp times a late position is an angle.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.float64(np.float32(theta)) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    return frequencies if scaling is None else scaling.scale(frequencies, theta)


def rotate(
    x_BTHC: Float[Array, "B T H C"],
    positions_BT: Int[Array, "B T"],
    frequencies: np.ndarray,
    amplitude: float = 1.0,
) -> Float[Array, "B T H C"]:
    """Apply rotary position embeddings in the half-split layout of Llama and Qwen.

    Component c of the first half turns with component c of the second half by the angle
    ``position * frequencies[c]``; both are scaled by ``amplitude``.
    """
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if amplitude != 1:
        cos, sin = cos * amplitude, sin * amplitude
    first, second = jnp.split(x_BTHC.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTHC.dtype)
