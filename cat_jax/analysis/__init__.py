"""Looking into a trained model: attention maps and figures."""

from cat_jax.analysis.attention_maps import attention_maps
from cat_jax.analysis.figures import answer_attention_figure, training_curves_figure

__all__ = ["answer_attention_figure", "attention_maps", "training_curves_figure"]
