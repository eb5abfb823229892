"""What can be checked and measured by name: every implementation, and both ways of ``augmented``.

Functions take (query, key, value, q_bits, k_bits, segment_ids) and return out and mass; the mass is
None where the bits are.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

from jax import Array

from pallas_kernels.causal_mass_attention.api import causal_mass_attention
from pallas_kernels.causal_mass_attention.augmented import augmented
from pallas_kernels.causal_mass_attention.augmented import unsupported_reason as augmented_reason
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.selection import Implementation, unsupported_reason
from pallas_kernels.causal_mass_attention.stock import (
    Stock,
    cudnn,
    wide_values_unsupported_reason,
)
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

Attention = Callable[..., tuple[Array, Array | None]]
Way = Literal["augmented_wide", "augmented_second"]
"""``augmented`` of cuDNN with the marks beside the values, and as a second attention."""
Name = Implementation | Way
WAYS: tuple[Way, ...] = get_args(Way)


def attention(name: Name) -> Attention:
    """Return the function of a name."""

    def run(query, key, value, q_bits, k_bits, segment_ids=None):
        if name in WAYS:
            inputs = Inputs(query, key, value, q_bits, k_bits, segment_ids)
            stock = Stock(cudnn, wide_values=name == "augmented_wide")
            return augmented(inputs, query.shape[-1] ** -0.5, stock=stock)
        arrays = query, key, value, q_bits, k_bits
        implementation: Any = name
        return causal_mass_attention(
            *arrays, segment_ids=segment_ids, implementation=implementation
        )

    return run


def refusal(name: Name, spec: InputSpec) -> str | None:
    """Return in one sentence why it cannot run on this machine, or None."""
    machine = Machine.here()
    if name not in WAYS:
        implementation: Any = name
        return unsupported_reason(implementation, **spec.facts())
    if machine.platform != "gpu":
        return f"{name} needs a GPU, and this machine runs JAX on a {machine.platform}"
    reason = augmented_reason(spec, machine)
    if reason is None and name == "augmented_wide":
        return wide_values_unsupported_reason(spec, machine)
    return reason
