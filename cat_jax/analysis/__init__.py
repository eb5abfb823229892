"""Analysis of trained models: attention maps and figures."""

from cat_jax.analysis.attention_maps import AttentionReading, attention_maps, read_attention
from cat_jax.analysis.figures import answer_attention_figure, training_curves_figure

__all__ = [
    "AttentionReading",
    "answer_attention_figure",
    "attention_maps",
    "read_attention",
    "training_curves_figure",
]
