"""Causal attention that also returns each query's probability mass on its annotated keys.

Shape suffixes: B sequences of a batch; Q query and K key positions; H query heads;
G key/value heads (query head h reads group h // (H // G)); R = H // G query heads per group;
C size of one head; W 32-bit words of annotation bits; N blocks of positions.

The mass and its gradient serve the Re-attention loss of CAT (Han et al., EMNLP 2025).
"""

from pallas_kernels.causal_mass_attention.api import IMPLEMENTATIONS, causal_mass_attention
from pallas_kernels.causal_mass_attention.differentiable import RESIDUAL_NAMES
from pallas_kernels.causal_mass_attention.reference import attention_probabilities

__all__ = [
    "IMPLEMENTATIONS",
    "RESIDUAL_NAMES",
    "attention_probabilities",
    "causal_mass_attention",
]
