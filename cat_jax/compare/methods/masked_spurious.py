"""Rival: plain fine-tuning on prompts in which what is spurious is masked."""

from cat_jax.compare.methods.base import plain_control
from cat_jax.tasks.controls import masked_spurious

MASKED_SPURIOUS = plain_control("masked_spurious", "spurious spans masked", masked_spurious)
