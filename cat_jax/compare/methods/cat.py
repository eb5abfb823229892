"""Causal attention tuning, with the guidance of the comparison."""

from cat_jax.compare.methods.base import Method
from cat_jax.config import Guidance
from cat_jax.errors import InputError


def _guidance(guidance: Guidance | None) -> Guidance:
    if guidance is None:
        raise InputError("method cat needs guidance; take a configuration that has some, or none")
    return guidance


CAT = Method("cat", "CAT", guidance=_guidance)
