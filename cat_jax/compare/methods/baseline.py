"""Plain fine-tuning: next tokens alone."""

from cat_jax.compare.methods.base import Method, no_guidance

BASELINE = Method("baseline", "plain fine-tuning", guidance=no_guidance)
