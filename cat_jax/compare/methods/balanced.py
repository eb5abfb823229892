"""Rival: plain fine-tuning on equally frequent answers."""

from cat_jax.compare.methods.base import plain_control
from cat_jax.tasks.controls import balanced

BALANCED = plain_control("balanced", "balanced classes", balanced)
