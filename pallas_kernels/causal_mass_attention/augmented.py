"""The mass from stock attention kernels: one more column of V for every annotation bit.

Column b of key j is 1 where the key has bit b, so that P V also holds the mass of each bit, and

    mass_i = sum of (P V)_ib over the bits b of query i.

Gradients flow through the stock kernel. The price is 32 columns per word beside the C of the
values, a mass rounded to the dtype of the output, and that a pair may share one bit only: a pair
that shares two would count twice. Where that can happen the mass of the query is NaN, so that it
cannot go unnoticed.

Stock kernels: cuDNN on a GPU, splash attention on a TPU, ``xla`` elsewhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Bool, Float, Float32, UInt32

from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.reference import xla
from pallas_kernels.causal_mass_attention.sharded import Partition, shard_mapped, specs
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine, require_supported

Stock = Callable[[Array, Array, Array, Array | None, float], Array]
"""Function (query, key, value, segment_ids, scale) -> out; values may be wider than keys."""

WORD = 32
CUDNN_WIDEST_ON_HOPPER, CUDNN_WIDEST = 256, 128
"""Widest heads and widest values of cuDNN, on Hopper and on other GPUs."""
SPLASH_BLOCKS = (128, 256, 512)
NOWHERE = jnp.iinfo(jnp.int32).max
"""Segment id of the padding."""


def unsupported_reason(spec: InputSpec, machine: Machine | None = None) -> str | None:
    """Return in one sentence why ``augmented`` does not support an input, or None.

    Without a machine, the stock kernel is that of this process.
    """
    platform = jax.default_backend() if machine is None else machine.platform
    if spec.biased:
        return "augmented takes no bias, as keys that are hidden from a query need: use xla"
    if spec.second_order and platform in ("gpu", "tpu"):
        return (
            "augmented runs a stock kernel here, whose backward cannot be differentiated again as "
            "a penalty on gradients needs: use xla"
        )
    if platform == "gpu":
        return cudnn_unsupported_reason(spec, machine)
    if platform == "tpu" and spec.dtype == "float16":
        return (
            "augmented on a TPU takes bfloat16 or float32, not float16, which TPU kernels cannot "
            "read: use xla_chunked"
        )
    return None


def cudnn_unsupported_reason(spec: InputSpec, machine: Machine | None = None) -> str | None:
    """Return in one sentence why cuDNN does not support an input, or its gradient, or None.

    Limits are those of JAX's ``check_is_flash_attention`` and of cuDNN's backward
    (``sdpa_support_surface.h`` of cudnn-frontend). Without a machine they are those of Hopper.
    """
    if spec.dtype not in ("bfloat16", "float16"):
        return f"augmented on a GPU takes bfloat16 or float16, not {spec.dtype}: cuDNN has no other"
    if spec.segments:
        return (
            "augmented on a GPU takes no segment_ids, cuDNN would need a mask of every pair: "
            "use mosaic_gpu or xla_chunked for packed sequences"
        )
    return _cudnn_unsupported_length(spec) or _cudnn_unsupported_width(spec, machine)


def _cudnn_unsupported_length(spec: InputSpec) -> str | None:
    if spec.queries is None or spec.keys is None:
        return None
    if spec.queries != spec.keys:
        return (
            f"augmented on a GPU takes as many queries as keys, not {spec.queries} and "
            f"{spec.keys}: cuDNN aligns the causal mask at the first query"
        )
    if spec.keys == 1:
        return (
            "augmented on a GPU takes sequences of two or more positions, not of one, of which "
            "cuDNN has no gradient"
        )
    return None


def _cudnn_unsupported_width(spec: InputSpec, machine: Machine | None) -> str | None:
    major = 9 if machine is None else _compute_capability_major(machine)
    if spec.words and machine is not None and major < 9:
        return (
            "augmented on a GPU needs Hopper or newer (compute capability 9.0) for annotation "
            f"bits, and this one has {machine.compute_capability}: values are wider than keys"
        )
    if spec.head_dim is None:
        return None
    widest = CUDNN_WIDEST_ON_HOPPER if major == 9 else CUDNN_WIDEST
    if spec.head_dim % 8 or spec.head_dim > widest:
        return (
            f"augmented on this GPU takes head sizes that are multiples of 8 up to {widest}, not "
            f"{spec.head_dim}: cuDNN has no other"
        )
    width = spec.head_dim + WORD * (spec.words or 0)
    if width > widest:
        return (
            f"augmented on this GPU takes values up to {widest} wide, not {width} (head size "
            f"{spec.head_dim} and {WORD} columns for each of {spec.words} words of bits)"
        )
    return None


def _compute_capability_major(machine: Machine) -> int:
    major = machine.compute_capability.split(".")[0]
    return int(major) if major.isdecimal() else 0


def augmented(
    inputs: Inputs, scale: float, *, partition: Partition | None = None, stock: Stock | None = None
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Return attention and mass from ``stock``, by default the stock kernel of this machine.

    Raises:
      ValueError: the default stock kernel, or cuDNN, does not support the input.
    """
    if stock is None:
        require_supported(unsupported_reason, inputs)
    elif stock is cudnn:
        require_supported(cudnn_unsupported_reason, inputs)
    stock = stock or STOCK.get(jax.default_backend(), materialized)
    if partition is None:
        return _augmented(stock, scale, *inputs)
    in_specs, values, statistic = specs(partition)
    return shard_mapped(
        partition,
        functools.partial(_augmented, stock, scale),
        inputs,
        in_specs,
        (values, None if inputs.q_bits is None else statistic),
    )


def _augmented(
    stock: Stock,
    scale: float,
    query_BQHC: Array,
    key_BKGC: Array,
    value_BKGC: Array,
    q_bits_BQW: Array | None,
    k_bits_BKW: Array | None,
    segment_ids_BK: Array | None,
) -> tuple[Array, Array | None]:
    if q_bits_BQW is None or k_bits_BKW is None:
        return stock(query_BQHC, key_BKGC, value_BKGC, segment_ids_BK, scale), None
    size = value_BKGC.shape[-1]
    k_columns_BKE = _columns(k_bits_BKW, value_BKGC.dtype)
    k_columns_BKGE = jnp.broadcast_to(
        k_columns_BKE[:, :, None], (*value_BKGC.shape[:3], k_columns_BKE.shape[-1])
    )
    value_BKGE = jnp.concatenate([value_BKGC, k_columns_BKGE], axis=-1)
    out_BQHE = stock(query_BQHC, key_BKGC, value_BKGE, segment_ids_BK, scale)
    hits_BQHE = out_BQHE[..., size:].astype(jnp.float32)
    mass_BHQ = jnp.einsum("BQHE,BQE->BHQ", hits_BQHE, _columns(q_bits_BQW, jnp.float32))
    counted_twice_B1Q = may_share_two_bits(q_bits_BQW, k_bits_BKW)[:, None]
    return out_BQHE[..., :size], jnp.where(counted_twice_B1Q, jnp.nan, mass_BHQ)


def may_share_two_bits(
    q_bits_BQW: UInt32[Array, "B Q W"], k_bits_BKW: UInt32[Array, "B K W"]
) -> Bool[Array, "B Q"]:
    """Return which queries have two bits that some key of their sequence has, too.

    Every key counts, also a later one and one of another segment.
    """
    q_columns_BQE = _columns(q_bits_BQW, jnp.float32)
    k_columns_BKE = _columns(k_bits_BKW, jnp.float32)
    together_BEE = jnp.einsum("BKE,BKF->BEF", k_columns_BKE, k_columns_BKE)
    count = together_BEE.shape[-1]
    together_BEE = jnp.where(jnp.eye(count, dtype=bool)[None], 0.0, together_BEE)
    pairs_BQE = jnp.einsum("BQE,BEF->BQF", q_columns_BQE, together_BEE)
    return (q_columns_BQE * pairs_BQE).sum(-1) > 0


def _columns(bits_BTW: Array, dtype) -> Array:
    """Unpack words [B, T, W] into columns of 0 and 1, [B, T, 32 W]."""
    shifts_D = jnp.arange(WORD, dtype=jnp.uint32)
    ones_BTWD = (bits_BTW[..., None] >> shifts_D[None, None, None]) & 1
    return ones_BTWD.reshape(*bits_BTW.shape[:2], -1).astype(dtype)


def materialized(query, key, value, segment_ids, scale: float) -> Array:
    """Compute attention from full maps, for machines without a stock kernel."""
    return xla(query, key, value, None, None, segment_ids, scale)[0]


def cudnn(query, key, value, _segment_ids, scale: float) -> Array:
    """Return the attention of cuDNN, for inputs that ``cudnn_unsupported_reason`` lets pass."""
    # The public jax.nn function insists on values as wide as keys.
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    out: Any = dot_product_attention(query, key, value, scale=scale, mask_type=MaskType.CAUSAL)
    return out


def splash_attention(
    query, key, value, segment_ids, scale: float, *, interpret: bool = False
) -> Array:
    """Compute JAX's splash attention; positions are padded to whole blocks."""
    _, queries, heads, _ = query.shape
    keys = key.shape[1]
    q_block, k_block = _block(queries), _block(keys)
    query = _pad_positions(query * scale, q_block, 0).swapaxes(1, 2)
    key, value = (_pad_positions(x, k_block, 0).swapaxes(1, 2) for x in (key, value))
    mask = splash.CausalMask((query.shape[2], key.shape[2]), offset=keys - queries)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            block_q=q_block,
            block_kv=k_block,
            block_q_dkv=q_block,
            block_kv_dkv=k_block,
            block_q_dq=q_block,
            block_kv_dq=k_block,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    segments = None
    if segment_ids is not None:
        # Padded queries read padded keys alone: no row is empty, and their rows are cut off.
        segments = splash.SegmentIds(
            q=_pad_positions(segment_ids[:, keys - queries :], q_block, NOWHERE),
            kv=_pad_positions(segment_ids, k_block, NOWHERE),
        )
    out: Any = jax.vmap(kernel)(query, key, value, segments)
    return out.swapaxes(1, 2)[:, :queries]


def _block(length: int) -> int:
    return min((block for block in SPLASH_BLOCKS if block >= length), default=SPLASH_BLOCKS[-1])


def _pad_positions(x_BT: Array, block: int, value: int) -> Array:
    padding = [(0, 0)] * x_BT.ndim
    padding[1] = (0, -x_BT.shape[1] % block)
    return jnp.pad(x_BT, padding, constant_values=value)


STOCK: dict[str, Stock] = {"gpu": cudnn, "tpu": splash_attention}
"""Stock kernels by ``jax.default_backend()``."""
