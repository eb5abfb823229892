"""Attention kernels for JAX that also return what causal guidance needs."""

from pallas_kernels.causal_mass_attention.api import causal_mass_attention
from pallas_kernels.causal_mass_attention.reference import attention_probabilities

__all__ = ["attention_probabilities", "causal_mass_attention"]
