"""Rival: plain fine-tuning on groups of equal weight, such as cue agrees and cue disagrees."""

from cat_jax.compare.methods.base import plain_control
from cat_jax.tasks.controls import group_reweighting

GROUP_REWEIGHTING = plain_control("group_reweighting", "groups reweighted", group_reweighting)
