"""Analysis: maps, figures and interventions of trained models; records as training sees them."""

from cat_jax.analysis.attention import (
    AttentionMaps,
    HeadScores,
    attention_maps,
    attention_rollout,
    attention_rows,
    attention_shares,
    gradient_rollout,
    gradient_weighted,
    head_scores,
    induction_scores,
    needle_records,
    read_attention,
    read_gradients,
    retrieval_scores,
)
from cat_jax.analysis.figures import (
    answer_attention_figure,
    attention_curves_figure,
    save_figure,
    training_curves_figure,
)
from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.analysis.interventions import (
    knock_out,
    knock_out_heads,
    patch_activations,
    trace_records,
    trace_spurious,
    twin_pairs,
)
from cat_jax.analysis.pages import attention_page, save_attention_page
from cat_jax.analysis.proposals import (
    Agreement,
    Proposal,
    agreement_markdown,
    causes_ranked_first,
    explanation_agreement,
    propose_causes,
)
from cat_jax.analysis.reading_figures import attention_figure, leak_figure, mass_change_figure
from cat_jax.analysis.records import ShownRecord, ShownRecords, show_records

__all__ = [
    "Agreement",
    "AttentionMaps",
    "HeadScores",
    "Panel",
    "Proposal",
    "ShownRecord",
    "ShownRecords",
    "agreement_markdown",
    "answer_attention_figure",
    "attention_curves_figure",
    "attention_figure",
    "attention_maps",
    "attention_page",
    "attention_rollout",
    "attention_rows",
    "attention_shares",
    "causes_ranked_first",
    "explanation_agreement",
    "gradient_rollout",
    "gradient_weighted",
    "head_scores",
    "induction_scores",
    "knock_out",
    "knock_out_heads",
    "layer_figure",
    "leak_figure",
    "mass_change_figure",
    "needle_records",
    "patch_activations",
    "propose_causes",
    "read_attention",
    "read_gradients",
    "retrieval_scores",
    "save_attention_page",
    "save_figure",
    "show_records",
    "trace_records",
    "trace_spurious",
    "training_curves_figure",
    "twin_pairs",
]
