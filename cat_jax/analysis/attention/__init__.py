"""Reading attention: maps with named axes, scores of heads, and rival readings of maps."""

from cat_jax.analysis.attention.gradients import read_gradients
from cat_jax.analysis.attention.head_scores import HeadScores, RankedHead
from cat_jax.analysis.attention.maps import attention_maps, attention_rows
from cat_jax.analysis.attention.measure_heads import attention_shares, head_scores, induction_scores
from cat_jax.analysis.attention.named import AttentionMaps
from cat_jax.analysis.attention.read import read_attention
from cat_jax.analysis.attention.retrieval import needle_records, retrieval_scores
from cat_jax.analysis.attention.rivals import (
    attention_rollout,
    gradient_rollout,
    gradient_weighted,
)

__all__ = [
    "AttentionMaps",
    "HeadScores",
    "RankedHead",
    "attention_maps",
    "attention_rollout",
    "attention_rows",
    "attention_shares",
    "gradient_rollout",
    "gradient_weighted",
    "head_scores",
    "induction_scores",
    "needle_records",
    "read_attention",
    "read_gradients",
    "retrieval_scores",
]
