"""CAT with the loss form that the published code takes by default, and its annotation."""

from dataclasses import replace

from cat_jax.compare.methods.base import Method
from cat_jax.config import PUBLISHED
from cat_jax.tasks.base import TRAIN

CAT_PUBLISHED_DIV = Method(
    "cat_published_div",
    "CAT, published default form",
    guidance=lambda guidance: replace(PUBLISHED, form="div"),
    records=lambda task, seed: task.as_published().records(TRAIN, seed),
)
