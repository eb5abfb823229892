"""Negative control: guidance to what is spurious."""

from cat_jax.compare.methods.base import guided_control
from cat_jax.tasks.controls import spurious_spans

SPURIOUS_SPANS = guided_control("spurious_spans", "CAT, spurious spans", spurious_spans)
