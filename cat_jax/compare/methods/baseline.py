"""Plain fine-tuning: next tokens alone."""

from cat_jax.compare.methods.base import Method

BASELINE = Method("baseline", "plain fine-tuning", guidance=lambda guidance: None)
