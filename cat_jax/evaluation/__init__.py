"""Decoding and what is measured on it."""

from cat_jax.evaluation.decode import greedy_decode
from cat_jax.evaluation.evaluator import answers, causal_mass, changed_answers, exact_match

__all__ = ["answers", "causal_mass", "changed_answers", "exact_match", "greedy_decode"]
