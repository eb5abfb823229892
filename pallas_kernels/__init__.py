"""Attention for JAX that also returns the causal mass, for causal guidance."""

from pallas_kernels.causal_mass_attention.api import KERNELS, causal_mass_attention
from pallas_kernels.causal_mass_attention.differentiable import RESIDUAL_NAMES
from pallas_kernels.causal_mass_attention.reference import (
    annotated_pairs,
    attention_probabilities,
    attention_rows,
    biased_attention,
)
from pallas_kernels.causal_mass_attention.selection import (
    Implementation,
    Selection,
    select_implementation,
    unsupported_reason,
)
from pallas_kernels.causal_mass_attention.sharded import Partition
from pallas_kernels.causal_mass_attention.support import Machine

__all__ = [
    "KERNELS",
    "RESIDUAL_NAMES",
    "Implementation",
    "Machine",
    "Partition",
    "Selection",
    "annotated_pairs",
    "attention_probabilities",
    "attention_rows",
    "biased_attention",
    "causal_mass_attention",
    "select_implementation",
    "unsupported_reason",
]
