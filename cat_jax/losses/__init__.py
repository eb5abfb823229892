"""Both objectives: next-token cross entropy and attention guidance."""

from cat_jax.losses.guidance import attention_guidance_loss
from cat_jax.losses.language_modeling import next_token_loss

__all__ = ["attention_guidance_loss", "next_token_loss"]
