"""Rival: plain fine-tuning on records of which the spurious values are redrawn besides."""

from cat_jax.compare.methods.base import plain_control
from cat_jax.tasks.controls import counterfactual

COUNTERFACTUAL = plain_control("counterfactual", "counterfactual augmentation", counterfactual)
