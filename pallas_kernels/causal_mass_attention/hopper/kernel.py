"""The kernel for Hopper GPUs (H100, H200), through Pallas Mosaic GPU; jax 0.11 or newer."""

import functools

import jax
from jax import Array

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel
from pallas_kernels.causal_mass_attention.hopper.operands import (
    cut_keys,
    cut_queries,
    prepare,
    with_cotangents,
)
from pallas_kernels.causal_mass_attention.hopper.tiles import SIZES, TileSizes, padded_size

OLDEST_JAX = (0, 11)
MOST_WORDS = 32  # of which every buffered tile has a copy in shared memory
MISCOMPILING_CUDA = range(12080, 12091)  # 12.8.0 to 12.9.0


def mosaic_gpu_kernel(sizes: TileSizes | None = None) -> Kernel:
    """The kernel with these tiles, by default those of the head size in ``SIZES``.

    float16 and bfloat16, head sizes up to 256, at most 32 words of bits, any lengths.

    Raises (when run):
      ValueError: input other than that, a jax older than 0.11, or a CUDA of which ptxas is known
        to miscompile causal kernels.
    """
    return Kernel(functools.partial(_forward, sizes), functools.partial(_backward, sizes))


# Mosaic GPU is imported when a kernel is built: it takes most of a second, and not every
# build of jax has it.


def _forward(
    sizes: TileSizes | None, inputs: Inputs, scale: float
) -> tuple[Array, Array | None, Array]:
    sizes = _checked(inputs, sizes)
    from pallas_kernels.causal_mass_attention.hopper.forward import forward

    problem, operands = prepare(sizes, inputs, scale)
    tile = sizes.forward
    results = forward(problem, tile, cut_keys(problem, operands, tile.columns))
    queries, size = inputs.query.shape[1], inputs.query.shape[-1]
    mass = None if results.mass is None else results.mass[..., :queries]
    return results.out[:, :queries, :, :size], mass, results.lse[..., :queries]


def _backward(
    sizes: TileSizes | None, inputs: Inputs, scale: float, out, mass, lse, d_out, d_mass
) -> tuple[Array, Array, Array]:
    sizes = _checked(inputs, sizes)
    from pallas_kernels.causal_mass_attention.hopper.key_gradient import key_gradients
    from pallas_kernels.causal_mass_attention.hopper.query_gradient import query_gradient

    problem, operands = prepare(sizes, inputs, scale)
    operands = with_cotangents(problem, operands, out, mass, lse, d_out, d_mass)
    tile = sizes.query_gradient
    d_query = query_gradient(problem, tile, cut_keys(problem, operands, tile.columns))
    tile = sizes.key_gradient
    operands = cut_queries(problem, operands, tile.columns)
    if sizes.separate:
        d_key = key_gradients(problem, tile, operands, value=False).key
        d_value = key_gradients(problem, tile, operands, key=False).value
    else:
        d_key, d_value = key_gradients(problem, tile, operands)
    (queries, _, size), keys = inputs.query.shape[1:], inputs.key.shape[1]
    d_query = d_query[:, :queries, :, :size]
    return d_query, d_key[:, :keys, :, :size], d_value[:, :keys, :, :size]


def _checked(inputs: Inputs, sizes: TileSizes | None) -> TileSizes:
    """The tiles to use, or one sentence about why this input cannot be taken."""
    if jax.__version_info__ < OLDEST_JAX:
        raise ValueError(f"mosaic_gpu needs jax 0.11 or newer, not {jax.__version__}")
    if _cuda_version() in MISCOMPILING_CUDA:
        raise ValueError(
            f"mosaic_gpu needs a CUDA older than 12.8 or newer than 12.9.0, not {_cuda_version()}: "
            "ptxas of these versions miscompiles causal kernels"
        )
    dtype, size = inputs.query.dtype, inputs.query.shape[-1]
    if dtype.name not in ("bfloat16", "float16"):
        raise ValueError(
            f"mosaic_gpu needs bfloat16 or float16, not {dtype}: the tensor cores of Hopper have "
            "no float32, use xla_chunked"
        )
    if size > max(SIZES):
        raise ValueError(
            f"mosaic_gpu needs a head size of at most {max(SIZES)}, not {size}: use xla_chunked"
        )
    words = 0 if inputs.q_bits is None else inputs.q_bits.shape[-1]
    if words > MOST_WORDS:
        raise ValueError(
            f"mosaic_gpu needs at most {MOST_WORDS} words of bits, not {words}: use xla_chunked"
        )
    return SIZES[padded_size(size)] if sizes is None else sizes


def _cuda_version() -> int:
    """1000 major + 10 minor + patch; 0 where jax has no CUDA, as when lowering for another host."""
    from jax._src.lib import cuda_versions

    return 0 if cuda_versions is None else cuda_versions.cuda_runtime_get_version()
