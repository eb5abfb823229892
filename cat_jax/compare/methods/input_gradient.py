"""Rival: a penalty on what the answer's loss owes to unannotated words.

Right for the right reasons (Ross et al., IJCAI 2017), on input embeddings; no guided attention.
"""

from cat_jax.compare.methods.base import Method, no_guidance
from cat_jax.config import InputGradient

INPUT_GRADIENT = Method(
    "input_gradient", "input-gradient penalty", no_guidance, regularizer=InputGradient()
)
