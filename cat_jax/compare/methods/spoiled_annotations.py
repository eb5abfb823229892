"""Controls: guidance with few annotated records, or with causes missing or wrong."""

from functools import partial

from cat_jax.compare.methods.base import Method, guided_control
from cat_jax.tasks.controls import few_annotations, missing_causes, wrong_causes


def annotated_share(percent: int) -> Method:
    """Return CAT with so many percent of the records annotated."""
    return guided_control(
        f"cat_annotated_{percent}",
        f"CAT, {percent} % annotated",
        partial(few_annotations, share=percent / 100),
    )


def missing_share(percent: int) -> Method:
    """Return CAT with so many percent of the causes not annotated."""
    return guided_control(
        f"cat_missing_{percent}",
        f"CAT, {percent} % of causes missing",
        partial(missing_causes, share=percent / 100),
    )


def wrong_share(percent: int) -> Method:
    """Return CAT with so many percent of the causes wrong."""
    return guided_control(
        f"cat_wrong_{percent}",
        f"CAT, {percent} % of causes wrong",
        partial(wrong_causes, share=percent / 100),
    )


CAT_ANNOTATED = tuple(map(annotated_share, (2, 10, 50)))
CAT_MISSING = tuple(map(missing_share, (20, 50)))
CAT_WRONG = tuple(map(wrong_share, (20, 50)))
