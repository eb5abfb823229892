"""Control: guidance to random words, as many as the causes have."""

from cat_jax.compare.methods.base import guided_control
from cat_jax.tasks.controls import random_spans

RANDOM_SPANS = guided_control("random_spans", "CAT, random spans", random_spans)
