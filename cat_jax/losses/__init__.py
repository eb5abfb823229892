"""Losses: next-token cross entropy, attention guidance, and both together (``objective``)."""

from cat_jax.losses.guidance import (
    GuidanceSums,
    attention_guidance_loss,
    guidance_metrics,
    guidance_sums,
    guided_rows,
    guided_samples,
)
from cat_jax.losses.language_modeling import (
    LogitBudget,
    NextTokenSums,
    budgeted_next_token_sums,
    gather_targets,
    next_token_loss,
    next_tokens,
)
from cat_jax.losses.mean import Mean, sum_means

__all__ = [
    "GuidanceSums",
    "LogitBudget",
    "Mean",
    "NextTokenSums",
    "attention_guidance_loss",
    "budgeted_next_token_sums",
    "gather_targets",
    "guidance_metrics",
    "guidance_sums",
    "guided_rows",
    "guided_samples",
    "next_token_loss",
    "next_tokens",
    "sum_means",
]
