"""CAT with its published loss and annotation (Han et al., EMNLP 2025)."""

from cat_jax.compare.methods.base import Method
from cat_jax.config import PUBLISHED
from cat_jax.tasks.base import TRAIN

CAT_PUBLISHED = Method(
    "cat_published",
    "CAT, published loss",
    guidance=lambda guidance: PUBLISHED,
    records=lambda task, seed: task.as_published().records(TRAIN, seed),
)
