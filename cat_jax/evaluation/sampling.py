"""Sampling of the next token from the logits."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cat_jax.errors import InputError
from cat_jax.types import Array, Float, Int


@dataclass(frozen=True)
class Sampling:
    """Which tokens may come next, and how likely.

    The filters apply in this order, the one of transformers' ``generate``.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Only the k likeliest tokens, and those as likely as the last of them.
        top_p: Only the fewest of the likeliest tokens that together reach this probability, and
            those as likely as the last of them (Holtzman et al., ICLR 2020).
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature must be finite and at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.temperature == 0 and (self.top_k, self.top_p) != (None, None):
            raise InputError(
                "top_k and top_p change nothing at temperature 0, which always takes the "
                "likeliest token: set a temperature, such as 1, or leave them out"
            )


GREEDY = Sampling()
"""Always take the likeliest token."""


def filter_logits(logits_BV: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Return the logits of the distribution to draw from; -inf for a token that is left out.

    Args:
        logits_BV: Logits, float32.
        sampling: Filters, with a temperature above 0.
    """
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        kept = min(sampling.top_k, logits_BV.shape[-1])
        logits_BV = _keep_from(jax.lax.top_k(logits_BV, kept)[0][:, -1:], logits_BV)
    if sampling.top_p is not None:
        rising_BV = jnp.sort(logits_BV, axis=-1)
        # A token is left out when it and all less likely ones hold no more than 1 - p.
        below_BV = jnp.cumsum(jax.nn.softmax(rising_BV, axis=-1), axis=-1)
        left_out_BV = (below_BV <= 1 - sampling.top_p).at[:, -1].set(False)
        least_B1 = jnp.where(left_out_BV, jnp.inf, rising_BV).min(axis=-1, keepdims=True)
        logits_BV = _keep_from(least_B1, logits_BV)
    return logits_BV


def _keep_from(least_B1: Array, logits_BV: Array) -> Array:
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)


def sample_tokens(
    keys_B: Array, logits_BV: Float[Array, "B V"], sampling: Sampling
) -> Int[Array, " B"]:
    """Draw the next token of every sequence with its own key; int32 [B]."""
    if sampling.temperature == 0:
        tokens_B = jnp.argmax(logits_BV, axis=-1)
    else:
        tokens_B = jax.vmap(jax.random.categorical)(keys_B, filter_logits(logits_BV, sampling))
    return tokens_B.astype(jnp.int32)
