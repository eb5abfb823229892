"""Control: guidance to the places of another record's causes."""

from cat_jax.compare.methods.base import guided_control
from cat_jax.tasks.controls import shuffled_causes

SHUFFLED_CAUSES = guided_control("shuffled_causes", "CAT, shuffled causes", shuffled_causes)
