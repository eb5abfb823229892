"""Analysis: attention maps and figures of trained models, and records as training sees them."""

from cat_jax.analysis.attention_maps import AttentionReading, attention_maps, read_attention
from cat_jax.analysis.figures import answer_attention_figure, training_curves_figure
from cat_jax.analysis.proposals import Proposal, causes_ranked_first, propose_causes
from cat_jax.analysis.records import ShownRecord, ShownRecords, show_records

__all__ = [
    "AttentionReading",
    "Proposal",
    "ShownRecord",
    "ShownRecords",
    "answer_attention_figure",
    "attention_maps",
    "causes_ranked_first",
    "propose_causes",
    "read_attention",
    "show_records",
    "training_curves_figure",
]
