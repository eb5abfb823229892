"""Attention and mass as Hopper kernels (Pallas Mosaic GPU), for H100 and H200."""

import functools

import jax
from jax import Array

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel
from pallas_kernels.causal_mass_attention.hopper.operands import (
    cut_keys,
    cut_queries,
    prepare,
    with_cotangents,
    zero_without_bits,
)
from pallas_kernels.causal_mass_attention.hopper.tiles import SIZES, TileSizes, padded_size
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine, require_supported

OLDEST_JAX = (0, 11)
HOPPER = "9.0"
DTYPES = ("bfloat16", "float16")
MOST_WORDS = 32  # every buffered tile has a copy of them in shared memory
MISCOMPILING_CUDA = range(12080, 12091)  # 12.8.0 to 12.9.0


def unsupported_reason(spec: InputSpec, machine: Machine | None = None) -> str | None:
    """Return in one sentence why ``mosaic_gpu`` does not support an input, or None.

    Of the machine, only the versions of JAX and CUDA are checked when ``machine`` is None.
    """
    if spec.biased:
        return "mosaic_gpu takes no bias, as keys that are hidden from a query need: use xla"
    if spec.second_order:
        return (
            "mosaic_gpu has a backward of its own, which cannot be differentiated again as a "
            "penalty on gradients needs: use xla"
        )
    if jax.__version_info__ < OLDEST_JAX:
        return f"mosaic_gpu needs jax 0.11 or newer, not {jax.__version__}"
    return _unsupported_machine(machine) or _unsupported_cuda() or _unsupported_input(spec)


def _unsupported_machine(machine: Machine | None) -> str | None:
    if machine is None:
        return None
    if machine.platform != "gpu":
        return f"mosaic_gpu needs a Hopper GPU, and this machine runs JAX on a {machine.platform}"
    if machine.compute_capability != HOPPER:
        return (
            f"mosaic_gpu needs a Hopper GPU (H100, H200; compute capability {HOPPER}), and this "
            f"one has {machine.compute_capability}"
        )
    return None


def _unsupported_cuda() -> str | None:
    version = _cuda_version()
    if version not in MISCOMPILING_CUDA:
        return None
    name = f"{version // 1000}.{version // 10 % 100}.{version % 10}"
    return (
        f"mosaic_gpu needs a CUDA older than 12.8.0 or newer than 12.9.0, not {name}, whose ptxas "
        "miscompiles causal kernels"
    )


def _unsupported_input(spec: InputSpec) -> str | None:
    if spec.dtype not in DTYPES:
        return (
            f"mosaic_gpu takes {' or '.join(DTYPES)}, not {spec.dtype}: the tensor cores of Hopper "
            "have no float32, use xla_chunked"
        )
    if spec.head_dim is not None and spec.head_dim > max(SIZES):
        return (
            f"mosaic_gpu takes head sizes up to {max(SIZES)}, not {spec.head_dim}: use xla_chunked"
        )
    if spec.words is not None and spec.words > MOST_WORDS:
        return (
            f"mosaic_gpu takes up to {MOST_WORDS} words of bits, not {spec.words}: use xla_chunked"
        )
    return None


def mosaic_gpu_kernel(sizes: TileSizes | None = None) -> Kernel:
    """Return the kernel with these tiles, by default those of the head size in ``SIZES``.

    It takes sequences of any length. Traced with an input that ``unsupported_reason`` refuses, it
    raises ValueError with that sentence.
    """
    return Kernel(functools.partial(_forward, sizes), functools.partial(_backward, sizes))


def _tile_sizes(sizes: TileSizes | None, inputs: Inputs) -> TileSizes:
    require_supported(unsupported_reason, inputs)
    return SIZES[padded_size(inputs.query.shape[-1])] if sizes is None else sizes


# Mosaic GPU is imported when a kernel is traced: the import takes most of a second, and not every
# build of jax has it.


def _forward(
    sizes: TileSizes | None, inputs: Inputs, scale: float
) -> tuple[Array, Array | None, Array]:
    sizes = _tile_sizes(sizes, inputs)
    from pallas_kernels.causal_mass_attention.hopper.forward import forward

    problem, operands = prepare(sizes, inputs, scale)
    tile = sizes.forward
    results = forward(problem, tile, cut_keys(problem, operands, tile.columns))
    queries, size = inputs.query.shape[1], inputs.query.shape[-1]
    mass = None
    if results.mass is not None:
        mass = zero_without_bits(problem, operands, results.mass[..., :queries])
    return results.out[:, :queries, :, :size], mass, results.lse[..., :queries]


def _backward(
    sizes: TileSizes | None, inputs: Inputs, scale: float, out, mass, lse, d_out, d_mass
) -> tuple[Array, Array, Array]:
    sizes = _tile_sizes(sizes, inputs)
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


def _cuda_version() -> int:
    """Return 1000 major + 10 minor + patch, or 0 for a JAX without CUDA, which only lowers."""
    from jax._src.lib import cuda_versions

    return 0 if cuda_versions is None else cuda_versions.cuda_runtime_get_version()
