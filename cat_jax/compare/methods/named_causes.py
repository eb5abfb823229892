"""Rival: plain fine-tuning on prompts that name the causes, in training and in the tests."""

from cat_jax.compare.methods.base import Method, no_guidance
from cat_jax.tasks.controls import named_causes

NAMED_CAUSES = Method(
    "named_causes", "causes named", no_guidance, prompt=lambda task, seed: named_causes
)
