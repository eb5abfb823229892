"""Analysis: maps, figures and interventions of trained models; records as training sees them."""

from cat_jax.analysis.attention import (
    AttentionMaps,
    attention_maps,
    attention_rows,
    read_attention,
)
from cat_jax.analysis.figures import (
    answer_attention_figure,
    save_figure,
    training_curves_figure,
)
from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.analysis.interventions import (
    knock_out,
    patch_activations,
    trace_records,
    trace_spurious,
    twin_pairs,
)
from cat_jax.analysis.proposals import Proposal, causes_ranked_first, propose_causes
from cat_jax.analysis.records import ShownRecord, ShownRecords, show_records

__all__ = [
    "AttentionMaps",
    "Panel",
    "Proposal",
    "ShownRecord",
    "ShownRecords",
    "answer_attention_figure",
    "attention_maps",
    "attention_rows",
    "causes_ranked_first",
    "knock_out",
    "layer_figure",
    "patch_activations",
    "propose_causes",
    "read_attention",
    "save_figure",
    "show_records",
    "trace_records",
    "trace_spurious",
    "training_curves_figure",
    "twin_pairs",
]
