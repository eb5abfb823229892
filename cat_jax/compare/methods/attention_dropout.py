"""Rival: unannotated words are hidden from annotated queries now and then, in training alone.

The same annotation as guidance has, but no loss on attention.
"""

from cat_jax.compare.methods.base import Method, no_guidance
from cat_jax.config import AttentionDropout

ATTENTION_DROPOUT = Method(
    "attention_dropout", "attention dropout", no_guidance, regularizer=AttentionDropout()
)
