"""Attention kernels for JAX that also return what causal guidance needs."""

from pallas_kernels.causal_mass_attention.api import KERNELS, causal_mass_attention
from pallas_kernels.causal_mass_attention.differentiable import RESIDUAL_NAMES
from pallas_kernels.causal_mass_attention.reference import attention_probabilities
from pallas_kernels.causal_mass_attention.selection import Choice, Implementation, choose, why_not
from pallas_kernels.causal_mass_attention.sharded import Partition

__all__ = [
    "KERNELS",
    "RESIDUAL_NAMES",
    "Choice",
    "Implementation",
    "Partition",
    "attention_probabilities",
    "causal_mass_attention",
    "choose",
    "why_not",
]
