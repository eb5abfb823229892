"""Which implementations run here, and which one ``auto`` takes.

What an implementation cannot do is said in its own file; it is only asked here.
"""

from typing import Literal, NamedTuple

from pallas_kernels.causal_mass_attention import augmented, chunked, reference
from pallas_kernels.causal_mass_attention.hopper import kernel as hopper
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine, UnsupportedReason
from pallas_kernels.causal_mass_attention.tpu import kernel as tpu

Implementation = Literal["xla", "xla_chunked", "augmented", "mosaic_gpu", "mosaic_tpu"]

MATERIALIZED_UP_TO = 512
"""Positions up to which full maps are small, and as fast as tiles."""

_UNSUPPORTED_REASONS: dict[Implementation, UnsupportedReason] = {
    "xla": reference.unsupported_reason,
    "xla_chunked": chunked.unsupported_reason,
    "augmented": augmented.unsupported_reason,
    "mosaic_gpu": hopper.unsupported_reason,
    "mosaic_tpu": tpu.unsupported_reason,
}
_KERNELS_OF_PLATFORM: dict[str, tuple[Implementation, ...]] = {
    "gpu": ("mosaic_gpu", "augmented"),
    "tpu": ("mosaic_tpu",),
}
"""What ``auto`` tries for long sequences, in turn."""
_NAMES: dict[Implementation, str] = {
    "mosaic_gpu": "kernel",
    "mosaic_tpu": "kernel",
    "augmented": "attention of cuDNN, the mass from its products",
}


class Selection(NamedTuple):
    """An implementation and the reason for it, in a few words."""

    implementation: Implementation
    reason: str


def unsupported_reason(
    implementation: Implementation,
    dtype: str = "bfloat16",
    *,
    head_dim: int | None = None,
    length: int | None = None,
    queries: int | None = None,
    words: int | None = None,
    segments: bool | None = None,
    biased: bool | None = None,
    second_order: bool | None = None,
    machine: Machine | None = None,
) -> str | None:
    """Return in one sentence why an implementation cannot run on a machine; None if it can.

    Facts that are None are not checked; what is not checked here may still be refused when the
    implementation is traced, with the same sentence.

    Args:
      implementation: name of the implementation.
      dtype: dtype of queries, keys and values.
      head_dim: size of one head.
      length: number of positions of the keys.
      queries: number of positions of the queries, by default ``length``.
      words: words of annotation bits, 0 without bits.
      segments: whether there are segment ids.
      biased: whether something is added to the scores.
      second_order: whether gradients are differentiated again.
      machine: by default this one; of another, JAX, CUDA and cuDNN are taken to be those here.
    """
    queries = length if queries is None else queries
    spec = InputSpec(dtype, head_dim, queries, length, words, segments, biased, second_order)
    return _UNSUPPORTED_REASONS[implementation](spec, machine or Machine.here())


def select_implementation(
    length: int,
    dtype: str = "bfloat16",
    *,
    head_dim: int | None = None,
    words: int | None = None,
    segments: bool | None = None,
    biased: bool | None = None,
    second_order: bool | None = None,
    machine: Machine | None = None,
) -> Selection:
    """Return the implementation for sequences of ``length`` positions on a machine.

    It is one that ``unsupported_reason`` has nothing against: ``xla`` for short sequences, with a
    bias and for gradients of gradients, else the kernel of the machine (``mosaic_gpu`` on Hopper,
    ``mosaic_tpu``), else on a GPU ``augmented``, else ``xla_chunked``.

    Args:
      length: number of positions of the longest sequences.
      dtype: dtype of queries, keys and values.
      head_dim: size of one head, if known.
      words: words of annotation bits, if known.
      segments: whether there are segment ids, if known.
      biased: whether something is added to the scores.
      second_order: whether gradients are differentiated again.
      machine: by default this one, see ``unsupported_reason``.
    """
    if length <= MATERIALIZED_UP_TO:
        return Selection("xla", f"full maps fit: {length} positions")
    if biased or second_order:
        why = "keys are hidden" if biased else "gradients are differentiated again"
        return Selection("xla", f"{why}; memory for full maps")
    machine = machine or Machine.here()
    reasons = [f"memory linear in the {length} positions"]
    for name in _KERNELS_OF_PLATFORM.get(machine.platform, ()):
        reason = unsupported_reason(
            name,
            dtype,
            head_dim=head_dim,
            length=length,
            words=words,
            segments=segments,
            machine=machine,
        )
        if reason is None:
            return Selection(
                name, "; ".join([f"{_NAMES[name]} for {machine.device}", *reasons[1:]])
            )
        reasons.append(reason)
    return Selection("xla_chunked", "; ".join(reasons))
