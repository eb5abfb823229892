"""Review of annotations by a person: on a page of its own, or in Label Studio."""

from cat_jax.annotation.review.items import ReviewItem, read_review_items
from cat_jax.annotation.review.label_studio import read_label_studio, write_label_studio
from cat_jax.annotation.review.page import review_page, save_review

__all__ = [
    "ReviewItem",
    "read_label_studio",
    "read_review_items",
    "review_page",
    "save_review",
    "write_label_studio",
]
