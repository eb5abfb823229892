"""CAT with its published loss and annotation (Han et al., EMNLP 2025)."""

from cat_jax.compare.methods.base import Method, published_records
from cat_jax.config import PUBLISHED

CAT_PUBLISHED = Method(
    "cat_published",
    "CAT, published loss",
    guidance=lambda guidance: PUBLISHED,
    records=published_records,
)
