"""Causes that a model itself proposes, by what changes its answer."""

from cat_jax.analysis.proposals.propose import as_annotation, propose_causes
from cat_jax.analysis.proposals.scores import causes_auroc, causes_ranked_first
from cat_jax.analysis.proposals.spans import (
    OtherRecords,
    Proposal,
    number_spans,
    other_number,
    word_spans,
)

__all__ = [
    "OtherRecords",
    "Proposal",
    "as_annotation",
    "causes_auroc",
    "causes_ranked_first",
    "number_spans",
    "other_number",
    "propose_causes",
    "word_spans",
]
