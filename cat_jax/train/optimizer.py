"""The optimizer every run shares."""

import optax

from cat_jax.config import Optimizer


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW under a linear warm-up and a cosine to zero at ``steps``, gradients clipped first."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=round(config.warmup * steps),
        decay_steps=steps,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay),
    )
