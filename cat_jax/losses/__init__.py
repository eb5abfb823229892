"""Both objectives: next-token cross entropy and attention guidance."""

from cat_jax.losses.guidance import (
    GuidanceTerms,
    attention_guidance_loss,
    guidance_metrics,
    guidance_terms,
    guided_rows,
    guided_samples,
)
from cat_jax.losses.language_modeling import (
    NextTokenTerms,
    chunked_next_token_terms,
    next_token_loss,
    next_tokens,
)
from cat_jax.losses.mean import Mean, sum_means

__all__ = [
    "GuidanceTerms",
    "Mean",
    "NextTokenTerms",
    "attention_guidance_loss",
    "chunked_next_token_terms",
    "guidance_metrics",
    "guidance_terms",
    "guided_rows",
    "guided_samples",
    "next_token_loss",
    "next_tokens",
    "sum_means",
]
