"""Attention and mass as TPU kernels (Pallas Mosaic), for v5e, v5p and v6e.

Three kernels: forward (out, log-sum-exp, mass), d_query, and d_key with d_value, each over tiles
of queries against keys. Tiles above the diagonal or between different segments are not computed,
and those above the diagonal are not copied either. A tile whose queries and keys share no bit, as
the OR of each block tells, does no work for the mass; without bits no tile does.

Tiles are 1024 x 1024 on all three generations (512 x 512 in float32, whose products take six
passes). With tiles half as large the instructions per pair are the same within 13 %, but there are
twice as many steps, which cost about 200 bundles each. VLIW bundles per fully visible tile, at
head size 128 in bfloat16, as scheduled by libtpu 0.0.42.1: without the mass, and with it where the
tile has shared bits (one word):

              forward        d_query        d_key, d_value
    v5e       4397  4506     5296  5522     7242  7535
    v5p       4266  4488     5430  5523     7281  7495
    v6e       2657  2737     3225  3597     4252  4505

From v6e on the matrix unit has 256 columns. Where 128 are left beside the values, the forward gets
the mass from them, of up to four words of bits; queries with several bits take 3618 bundles with
one word and 5134 with four. On a matrix unit of 128 columns the product would cost 5685.

VMEM, in KiB, at head size 128 in bfloat16, for F tags of a position (words of bits, and one for
the segment; up to 8 of them fill one set of sublanes):

                                      forward     d_query     d_key, d_value
    blocks of q, k, v, ..., two each  4 x 512     5 x 512     6 x 512
    statistics and tags, two each     16 + 128    64 + 128    64 + 128
    marks of the keys (v6e), two each 512
    running sums                      4 x 512     512         2 x 512
    tags turned into columns          F x 512     (3 + F) x 512   F x 512
    with scores and spills, F = 2     8430        7630        10000    (by the compiler)

of 128 MiB (v5e, v6e) or 64 MiB (v5p): the kernels ask for at most 48 MiB. No operand in VMEM is as
long as the sequence, so its length is limited by HBM alone.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.classes import WORD
from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel, softmax_delta
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine, require_supported
from pallas_kernels.causal_mass_attention.tpu.backward import keys_gradient, queries_gradient
from pallas_kernels.causal_mass_attention.tpu.forward import forward
from pallas_kernels.causal_mass_attention.tpu.tiling import (
    LANES,
    SUBLANES,
    Tiling,
    summary,
    tags,
)


class Blocks(NamedTuple):
    """Numbers of queries and of keys in a tile of each kernel, rounded up to multiples of 128."""

    forward: tuple[int, int]
    queries: tuple[int, int]
    keys: tuple[int, int]

    @classmethod
    def square(cls, side: int) -> "Blocks":
        """Return the same square tile for all three kernels."""
        return cls(*[(side, side)] * 3)


BLOCKS = {"bfloat16": Blocks.square(1024), "float32": Blocks.square(512)}


def unsupported_reason(spec: InputSpec, machine: Machine | None = None) -> str | None:
    """Return in one sentence why ``mosaic_tpu`` does not support an input, or None."""
    if spec.biased:
        return "mosaic_tpu takes no bias, as keys that are hidden from a query need: use xla"
    if spec.second_order:
        return (
            "mosaic_tpu has a backward of its own, which cannot be differentiated again as a "
            "penalty on gradients needs: use xla"
        )
    if machine is not None and machine.platform != "tpu":
        return f"mosaic_tpu needs a TPU, and this machine runs JAX on a {machine.platform}"
    if spec.dtype not in BLOCKS:
        return (
            f"mosaic_tpu takes {' or '.join(BLOCKS)}, not {spec.dtype}, which TPU kernels cannot "
            "read: use xla_chunked"
        )
    return None


def mosaic_tpu_kernel(blocks: Blocks | None = None, mxu_columns: int | None = None) -> Kernel:
    """Return the kernel with these blocks, by default those of the dtype in ``BLOCKS``.

    ``mxu_columns`` is the width of the matrix unit, by default that of the TPU that it is traced
    for: where 128 columns are left beside the values, the forward gets the mass from them.

    It takes any Q, K, C and W, in memory O(T). Traced with an input that ``unsupported_reason``
    refuses, it raises ValueError with that sentence.
    """
    return Kernel(
        functools.partial(_forward, blocks, mxu_columns), functools.partial(_backward, blocks)
    )


def _blocks(blocks: Blocks | None, inputs: Inputs) -> Blocks:
    require_supported(unsupported_reason, inputs)
    return blocks or BLOCKS[jnp.dtype(inputs.query.dtype).name]


def _forward(blocks: Blocks | None, mxu_columns: int | None, inputs: Inputs, scale: float):
    blocks = _blocks(blocks, inputs)
    marks = _has_marks(inputs, mxu_columns or _mxu_columns())
    tiling = Tiling.of(inputs, scale, *blocks.forward, marks)
    out, stats = forward(tiling, *_operands(tiling, inputs), *_tags_and_summaries(tiling, inputs))
    stats = stats[..., : tiling.queries]
    mass = stats[:, :, 1] if tiling.words else None
    return _positions_first(out, tiling.queries), mass, stats[:, :, 0]


def _has_marks(inputs: Inputs, mxu_columns: int) -> bool:
    """Return whether every bit has a column beside the values."""
    if inputs.q_bits is None:
        return False
    return inputs.q_bits.shape[-1] * WORD <= LANES <= mxu_columns - inputs.value.shape[-1]


def _mxu_columns() -> int:
    try:
        return pltpu.get_tpu_info().mxu_column_size
    except ValueError:  # interpreted, or lowered for no particular TPU
        return LANES


def _backward(blocks, inputs: Inputs, scale: float, out, mass, lse, d_out, d_mass):
    blocks = _blocks(blocks, inputs)
    delta = softmax_delta(out, mass, d_out, d_mass)
    annotated_delta = delta if mass is None else delta - d_mass

    def run(gradient, block):
        tiling = Tiling.of(inputs, scale, *block)
        length = tiling.q_count * tiling.q_block
        stats = jnp.stack([lse / tiling.strength, delta, annotated_delta], 2)
        stats = jnp.pad(stats, ((0, 0), (0, 0), (0, SUBLANES - 3), (0, length - tiling.queries)))
        operands = (*_operands(tiling, inputs), _heads_first(d_out, length), stats)
        return gradient(tiling, *operands, *_tags_and_summaries(tiling, inputs))

    d_query = run(queries_gradient, blocks.queries)
    d_key, d_value = run(keys_gradient, blocks.keys)
    queries, keys = inputs.query.shape[1], inputs.key.shape[1]
    return (
        _positions_first(d_query, queries),
        _positions_first(d_key, keys),
        _positions_first(d_value, keys),
    )


def _operands(tiling: Tiling, inputs: Inputs) -> tuple[Array, Array, Array]:
    query = _heads_first(inputs.query, tiling.q_count * tiling.q_block)
    keys = tiling.k_count * tiling.k_block
    return query, _heads_first(inputs.key, keys), _heads_first(inputs.value, keys)


def _tags_and_summaries(tiling: Tiling, inputs: Inputs):
    q_tags, k_tags = tags(tiling, inputs)
    summaries = (
        summary(tiling, q_tags, tiling.q_block),
        summary(tiling, k_tags, tiling.k_block),
    )
    return (q_tags, k_tags), summaries


def _heads_first(x_BTHC: Array, length: int) -> Array:
    """Transpose [B, T, H, C] to [B, H, length, C]; the padding comes after every real query."""
    short = length - x_BTHC.shape[1]
    return jnp.pad(x_BTHC.swapaxes(1, 2), ((0, 0), (0, 0), (0, short), (0, 0)))


def _positions_first(x_BHTC: Array, length: int) -> Array:
    """Transpose [B, H, T, C] to [B, length, H, C], without the padding."""
    return x_BHTC[:, :, :length].swapaxes(1, 2)
