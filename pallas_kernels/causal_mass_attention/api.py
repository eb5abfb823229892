"""The public function: it checks its input, then runs the named implementation."""

import math
from numbers import Real
from typing import get_args

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, Int32, UInt32

from pallas_kernels.causal_mass_attention.augmented import augmented
from pallas_kernels.causal_mass_attention.chunked import chunked_kernel
from pallas_kernels.causal_mass_attention.differentiable import Inputs, differentiable
from pallas_kernels.causal_mass_attention.hopper.kernel import mosaic_gpu_kernel
from pallas_kernels.causal_mass_attention.reference import xla
from pallas_kernels.causal_mass_attention.selection import Implementation
from pallas_kernels.causal_mass_attention.sharded import Partition, sharded
from pallas_kernels.causal_mass_attention.tpu.kernel import mosaic_tpu_kernel

KERNELS = {
    "xla_chunked": chunked_kernel(),
    "mosaic_gpu": mosaic_gpu_kernel(),
    "mosaic_tpu": mosaic_tpu_kernel(),
}
"""Implementations with a backward of their own, whose residuals are named (``RESIDUAL_NAMES``) so
that a checkpoint policy can save them."""
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)

_FLOATS = ("float32", "bfloat16", "float16")


def causal_mass_attention(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    value_BKGC: Float[Array, "B K G C"],
    q_bits_BQW: UInt32[Array, "B Q W"] | None,
    k_bits_BKW: UInt32[Array, "B K W"] | None,
    *,
    segment_ids: Int32[Array, "B K"] | None = None,
    scale: float | None = None,
    implementation: Implementation = "xla",
    partition: Partition | None = None,
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Compute causal attention, and each query's probability mass on its annotated keys.

    The mass is the statistic of CAT (Han et al., EMNLP 2025), computed without storing the map P:
    ``mass[b, h, i] = sum of P[b, h, i, j] over visible j with any(q_bits[b, i] & k_bits[b, j])``.
    Key j is visible to query i when j <= i and both are in the same segment.

    Args:
      query_BQHC: Queries in float32, bfloat16 or float16. With Q < K they are the last Q of the K
        positions, after a prefix.
      key_BKGC: Keys in the query's dtype. G divides H; query head h reads group h // (H // G).
      value_BKGC: Values in the query's dtype.
      q_bits_BQW: Annotation bits of each query, uint32.
      k_bits_BKW: Annotation bits of each key, uint32. If both are None, the mass is None and costs
        nothing.
      segment_ids: Segment of each position, int32 [B, K], for packed sequences; padding needs a
        segment of its own.
      scale: Python number that multiplies the scores, C**-0.5 by default.
      implementation: "xla" stores the maps; the others need O(T) memory and have reverse mode only:
        "xla_chunked", "augmented" (stock kernels, see ``augmented.py``), "mosaic_gpu" (Hopper) and
        "mosaic_tpu". None falls back to another; ``unsupported_reason`` tells beforehand what it
        does not support.
      partition: Split of sequences, heads and positions over devices. XLA splits "xla" by itself,
        but cannot look into kernels.

    Returns:
      out [B, Q, H, C] in the query's dtype and mass [B, H, Q] in float32, both differentiable
      with respect to query, key and value. Softmax statistics are float32 for every dtype.

    Raises:
      ValueError: Unknown implementation; shape, dtype or scale other than the above; input that
        the implementation does not support; sequences or query heads that do not divide among the
        devices.
    """
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(repr(name) for name in IMPLEMENTATIONS)
        raise ValueError(f"implementation {implementation!r} is not available: choose from {names}")
    _check_values(query_BQHC, key_BKGC, value_BKGC)
    batch, queries, heads, size = query_BQHC.shape
    keys, groups = key_BKGC.shape[1:3]
    _check_bits(q_bits_BQW, k_bits_BKW, (batch, queries), (batch, keys))
    if segment_ids is not None:
        _check_array("segment_ids", segment_ids, (batch, keys), "int32")
    factor = size**-0.5 if scale is None else _checked_scale(scale)
    if partition is not None:
        repeats = partition.repeats(batch, heads, groups)
        query_BQHC, key_BKGC, value_BKGC = (
            partition.by_heads(jnp.repeat(partition.by_positions(x), times, axis=2))
            for x, times in ((query_BQHC, 1), (key_BKGC, repeats), (value_BKGC, repeats))
        )
    inputs = Inputs(query_BQHC, key_BKGC, value_BKGC, q_bits_BQW, k_bits_BKW, segment_ids)
    with jax.named_scope("causal_mass_attention"):
        out_BQHC, mass_BHQ = _run(implementation, inputs, factor, partition)
    return out_BQHC if partition is None else partition.by_positions(out_BQHC), mass_BHQ


def _run(
    implementation: Implementation, inputs: Inputs, scale: float, partition: Partition | None
) -> tuple[Array, Array | None]:
    if implementation in KERNELS:
        kernel = KERNELS[implementation]
        kernel = kernel if partition is None else sharded(kernel, partition)
        return differentiable(kernel, inputs, scale)
    if implementation == "augmented":
        return augmented(inputs, scale, partition=partition)
    return xla(*inputs, scale)


def _check_values(query: Array, key: Array, value: Array) -> None:
    if query.ndim != 4 or key.ndim != 4 or 0 in query.shape + key.shape:
        raise ValueError(
            "query must be [B, Q, H, C] and key [B, K, G, C] with no empty axis, "
            f"not {query.shape} and {key.shape}"
        )
    if jnp.dtype(query.dtype).name not in _FLOATS:
        raise ValueError(f"query must be one of {', '.join(_FLOATS)}, not {query.dtype}")
    batch, queries, heads, size = query.shape
    keys, groups = key.shape[1:3]
    _check_array("key", key, (batch, keys, groups, size), query.dtype)
    _check_array("value", value, key.shape, query.dtype)
    if heads % groups:
        raise ValueError(f"query has {heads} heads, not a multiple of the {groups} of key")
    if queries > keys:
        raise ValueError(f"query has {queries} positions, more than the {keys} of key")


def _check_bits(q_bits, k_bits, q_lead: tuple[int, ...], k_lead: tuple[int, ...]) -> None:
    if (q_bits is None) != (k_bits is None):
        raise ValueError("q_bits and k_bits must be given together, or both be None")
    if q_bits is not None:
        words = q_bits.shape[-1:]
        if words in ((), (0,)):
            raise ValueError(f"q_bits must be [B, Q, W] with W >= 1, not {q_bits.shape}")
        _check_array("q_bits", q_bits, q_lead + words, "uint32")
        _check_array("k_bits", k_bits, k_lead + words, "uint32")


def _check_array(name: str, x: Array, shape: tuple[int, ...], dtype) -> None:
    if x.shape != shape or x.dtype != dtype:
        raise ValueError(f"{name} must be {dtype} {list(shape)}, not {x.dtype} {list(x.shape)}")


def _checked_scale(scale) -> float:
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise ValueError(f"scale must be a finite Python number, not {scale!r}")
    return float(scale)
