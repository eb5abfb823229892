"""Control: guidance by a causal prior that takes one spurious factor for a cause."""

from cat_jax.compare.methods.base import guided_control
from cat_jax.tasks.controls import wrong_prior

WRONG_PRIOR = guided_control("wrong_prior", "CAT, wrong prior", wrong_prior)
