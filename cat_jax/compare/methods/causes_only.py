"""Rival: plain fine-tuning on prompts reduced to the causes."""

from cat_jax.compare.methods.base import plain_control
from cat_jax.tasks.controls import causes_only

CAUSES_ONLY = plain_control("causes_only", "causes only", causes_only)
