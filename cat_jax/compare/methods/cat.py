"""Causal attention tuning, with the guidance of the comparison."""

from cat_jax.compare.methods.base import Method, needed_guidance

CAT = Method("cat", "CAT", guidance=needed_guidance("cat"))
