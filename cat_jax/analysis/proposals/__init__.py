"""Causes that a model itself proposes, by what changes its answer."""

from cat_jax.analysis.proposals.propose import as_annotation, causes_ranked_first, propose_causes
from cat_jax.analysis.proposals.spans import Proposal, number_spans, other_number, word_spans

__all__ = [
    "Proposal",
    "as_annotation",
    "causes_ranked_first",
    "number_spans",
    "other_number",
    "propose_causes",
    "word_spans",
]
