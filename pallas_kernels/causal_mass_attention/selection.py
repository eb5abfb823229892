"""Which implementation this machine can run, and which is meant for it."""

from typing import Literal, NamedTuple

import jax

Implementation = Literal["xla", "xla_chunked", "augmented", "mosaic_gpu", "mosaic_tpu"]

MATERIALIZED_UP_TO = 512
"""Positions up to which full maps are small, and as fast as tiles of them."""
FIRST_JAX_OF_MOSAIC_GPU = (0, 11)
HOPPER = 9.0


class Selection(NamedTuple):
    """An implementation and, in a sentence, why it was taken."""

    implementation: Implementation
    reason: str


def unsupported_reason(implementation: Implementation, dtype: str = "bfloat16") -> str | None:
    """What keeps an implementation from running here; None when it can.

    It asks the backend of this process: programs for other machines are lowered without it.
    """
    platform = jax.default_backend()
    if implementation == "mosaic_tpu":
        if platform != "tpu":
            return f"mosaic_tpu needs a TPU, and this machine runs JAX on a {platform}"
        if dtype == "float16":
            return "mosaic_tpu takes bfloat16 or float32: TPUs cannot compute with float16"
    if implementation == "mosaic_gpu":
        return _why_not_hopper(platform, dtype)
    if implementation == "augmented" and platform == "gpu" and dtype == "float32":
        return "augmented takes bfloat16 or float16 on a GPU: cuDNN has no float32 attention"
    return None


def _why_not_hopper(platform: str, dtype: str) -> str | None:
    if jax.__version_info__ < FIRST_JAX_OF_MOSAIC_GPU:
        return f"mosaic_gpu needs jax 0.11 or newer, and this is {jax.__version__}"
    if platform != "gpu":
        return f"mosaic_gpu needs a Hopper GPU, and this machine runs JAX on a {platform}"
    capability = getattr(jax.devices()[0], "compute_capability", "unknown")
    if capability != str(HOPPER):
        return (
            "mosaic_gpu needs a Hopper GPU (H100, H200; compute capability 9.0), and this one has "
            f"{capability}"
        )
    if dtype == "float32":
        return "mosaic_gpu takes bfloat16 or float16: the tensor cores have no float32"
    return None


def select_implementation(length: int, dtype: str = "bfloat16") -> Selection:
    """The implementation for rows of ``length`` positions on this machine.

    Args:
      length: of the longest rows.
      dtype: of activations.
    """
    if length <= MATERIALIZED_UP_TO:
        return Selection("xla", f"the maps of {length} positions are small")
    kernels: tuple[Implementation, ...] = ("mosaic_tpu", "mosaic_gpu")
    for kernel in kernels:
        if unsupported_reason(kernel, dtype) is None:
            return Selection(kernel, f"the kernel for {jax.devices()[0].device_kind}")
    reason = f"its memory grows with the {length} positions, not with their square"
    if (platform := jax.default_backend()) != "cpu":
        kernel = "mosaic_tpu" if platform == "tpu" else "mosaic_gpu"
        reason += f"; {unsupported_reason(kernel, dtype)}"
    return Selection("xla_chunked", reason)
