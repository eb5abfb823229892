"""CAT with the loss form that the published code takes by default, and its annotation."""

from dataclasses import replace

from cat_jax.compare.methods.base import Method, published_records
from cat_jax.config import PUBLISHED

CAT_PUBLISHED_DIV = Method(
    "cat_published_div",
    "CAT, published default form",
    guidance=lambda guidance: replace(PUBLISHED, form="div"),
    records=published_records,
)
