"""Decoding and what is measured on it."""

from cat_jax.evaluation.chat import chat_prompt
from cat_jax.evaluation.decode import generate, warm_up
from cat_jax.evaluation.evaluator import answers, causal_mass, changed_answers, exact_match
from cat_jax.evaluation.sampling import GREEDY, Sampling
from cat_jax.evaluation.validation import make_validation

__all__ = [
    "GREEDY",
    "Sampling",
    "answers",
    "causal_mass",
    "changed_answers",
    "chat_prompt",
    "exact_match",
    "generate",
    "make_validation",
    "warm_up",
]
