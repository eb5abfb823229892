"""Stock attention kernels, and what cuDNN does not support.

cuDNN on a GPU, JAX's splash attention on a TPU, and ``xla`` elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from pallas_kernels.causal_mass_attention.classes import WORD
from pallas_kernels.causal_mass_attention.reference import xla
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

SPLASH_BLOCKS = (128, 256, 512)
NOWHERE = jnp.iinfo(jnp.int32).max
"""Segment id of the padding."""

OLDEST_CAPABILITY, HOPPER = 8, 9
WIDEST_ON_HOPPER, WIDEST = 256, 128
"""Widest heads and values that cuDNN differentiates, on Hopper and on other GPUs."""
WIDTH_STEP, LENGTH_STEP = 8, 2
"""Head sizes and lengths are padded to multiples of these."""
MOST_ATTENTIONS = 4
"""Most attentions for the marks: with more, ``xla_chunked`` is as fast."""
BROKEN_CUDNN = (91000, 91001)
OLDEST_CUDNN_OF_10_3 = 91100
OLDEST_CUDNN_OF_WIDE_VALUES = 91000


class Stock(NamedTuple):
    """A stock kernel.

    Attributes:
        attend: Function (query, key, value, segment_ids, scale) -> out, causal.
        wide_values: Whether values may be wider than keys.
    """

    attend: Callable[[Array, Array, Array, Array | None, float], Array]
    wide_values: bool


def stock_kernel(spec: InputSpec, machine: Machine) -> Stock:
    """Return the stock kernel of a machine, for an input that it supports."""
    if machine.platform == "gpu":
        return Stock(cudnn, wide_values_unsupported_reason(spec, machine) is None)
    return Stock(splash_attention if machine.platform == "tpu" else materialized, True)


def materialized(query, key, value, segment_ids, scale: float) -> Array:
    """Compute attention from full maps, for machines without a stock kernel."""
    return xla(query, key, value, None, None, segment_ids, scale)[0]


def cudnn(query, key, value, _segment_ids, scale: float) -> Array:
    """Compute the attention of cuDNN, for inputs that ``cudnn_unsupported_reason`` lets pass.

    Padding changes nothing: zeros add nothing to scores, and a padded key is later than every
    query.
    """
    # The public jax.nn function insists on values as wide as keys.
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    length, width = query.shape[1], value.shape[3]
    query, key, value = (_pad(_pad(x, 1, LENGTH_STEP), 3, WIDTH_STEP) for x in (query, key, value))
    out: Any = dot_product_attention(query, key, value, scale=scale, mask_type=MaskType.CAUSAL)
    return out[:, :length, :, :width]


def cudnn_unsupported_reason(spec: InputSpec, machine: Machine) -> str | None:
    """Return in one sentence why cuDNN does not support an input, or its gradient, or None.

    Limits are those of JAX's ``check_is_flash_attention`` and of cuDNN
    (``sdpa_support_surface.h`` of cudnn-frontend).
    """
    if _capability_major(machine) < OLDEST_CAPABILITY:
        return (
            f"augmented on a GPU needs cuDNN and compute capability {OLDEST_CAPABILITY}.0 or "
            f"newer, and this one has {machine.compute_capability}"
        )
    return _unsupported_cudnn(machine) or _unsupported_input(spec, machine)


def _unsupported_cudnn(machine: Machine) -> str | None:
    version = cudnn_version()
    if version in BROKEN_CUDNN:
        return (
            f"augmented on a GPU needs a cuDNN other than {_name(version)}, whose attention fails"
        )
    if machine.compute_capability == "10.3" and 0 < version < OLDEST_CUDNN_OF_10_3:
        return f"augmented on this GPU needs cuDNN 9.11 or newer, not {_name(version)}"
    return None


def _unsupported_input(spec: InputSpec, machine: Machine) -> str | None:
    if spec.dtype not in ("bfloat16", "float16"):
        return f"augmented on a GPU takes bfloat16 or float16, not {spec.dtype}: cuDNN has no other"
    if spec.segments:
        return (
            "augmented on a GPU takes no segment_ids, cuDNN would need a mask of every pair: "
            "use mosaic_gpu or xla_chunked for packed sequences"
        )
    if spec.queries != spec.keys and spec.queries is not None and spec.keys is not None:
        return (
            f"augmented on a GPU takes as many queries as keys, not {spec.queries} and "
            f"{spec.keys}: cuDNN aligns the causal mask at the first query"
        )
    if spec.head_dim is None:
        return None
    if spec.head_dim > _widest(machine):
        return (
            f"augmented on this GPU takes head sizes up to {_widest(machine)}, not "
            f"{spec.head_dim}: cuDNN has no gradient of others"
        )
    most = MOST_ATTENTIONS * _round_up(spec.head_dim, WIDTH_STEP) // WORD
    if (spec.words or 0) > most and wide_values_unsupported_reason(spec, machine) is not None:
        return (
            f"augmented on this GPU takes up to {most} words of bits at head size "
            f"{spec.head_dim}, not {spec.words}: more would take {MOST_ATTENTIONS + 1} or more "
            "attentions of cuDNN beside the first"
        )
    return None


def wide_values_unsupported_reason(spec: InputSpec, machine: Machine) -> str | None:
    """Return in one sentence why cuDNN takes no values that are wider by the marks, or None."""
    if _capability_major(machine) != HOPPER:
        return (
            f"cuDNN takes values wider than keys on Hopper only (compute capability {HOPPER}.0), "
            f"and this GPU has {machine.compute_capability}"
        )
    version = cudnn_version()
    if 0 < version < OLDEST_CUDNN_OF_WIDE_VALUES:
        return f"cuDNN takes values wider than keys from 9.10 on, not in {_name(version)}"
    if spec.head_dim is None:
        return None
    width = _round_up(spec.head_dim + WORD * (spec.words or 0), WIDTH_STEP)
    if width > _widest(machine):
        return (
            f"cuDNN takes values up to {_widest(machine)} wide, not {width} (head size "
            f"{spec.head_dim} and {WORD} columns for each of {spec.words} words of bits)"
        )
    return None


def cudnn_version() -> int:
    """Return 10,000 major + 100 minor + patch; 0 without CUDA or cuDNN, where JAX only lowers."""
    from jax._src.lib import cuda_versions

    if cuda_versions is None:
        return 0
    try:
        return cuda_versions.cudnn_get_version()
    except RuntimeError:  # the plugin is there, as a compiler, without the library
        return 0


def _name(version: int) -> str:
    return f"{version // 10_000}.{version // 100 % 100}.{version % 100}"


def _capability_major(machine: Machine) -> int:
    major = machine.compute_capability.split(".")[0]
    return int(major) if major.isdecimal() else 0


def _widest(machine: Machine) -> int:
    return WIDEST_ON_HOPPER if _capability_major(machine) == HOPPER else WIDEST


def splash_attention(
    query, key, value, segment_ids, scale: float, *, interpret: bool = False
) -> Array:
    """Compute JAX's splash attention; positions are padded to whole blocks."""
    _, queries, heads, _ = query.shape
    keys = key.shape[1]
    q_block, k_block = _block(queries), _block(keys)
    query = _pad(query * scale, 1, q_block).swapaxes(1, 2)
    key, value = (_pad(x, 1, k_block).swapaxes(1, 2) for x in (key, value))
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
            q=_pad(segment_ids[:, keys - queries :], 1, q_block, NOWHERE),
            kv=_pad(segment_ids, 1, k_block, NOWHERE),
        )
    out: Any = jax.vmap(kernel)(query, key, value, segments)
    return out.swapaxes(1, 2)[:, :queries]


def _block(length: int) -> int:
    return min((block for block in SPLASH_BLOCKS if block >= length), default=SPLASH_BLOCKS[-1])


def _pad(x: Array, axis: int, step: int, value: int = 0) -> Array:
    """Pad an axis to a multiple of ``step``."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -x.shape[axis] % step)
    return jnp.pad(x, padding, constant_values=value) if padding[axis][1] else x


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
