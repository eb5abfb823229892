"""Causes that a model itself proposes, by what changes its answer."""

from cat_jax.analysis.proposals.agreement import (
    Agreement,
    agreement_markdown,
    explanation_agreement,
    ranking_agreement,
)
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
    "Agreement",
    "OtherRecords",
    "Proposal",
    "agreement_markdown",
    "as_annotation",
    "causes_auroc",
    "causes_ranked_first",
    "explanation_agreement",
    "number_spans",
    "other_number",
    "propose_causes",
    "ranking_agreement",
    "word_spans",
]
