"""The optimizer of all runs."""

import optax

from cat_jax.config import Optimizer


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """Return AdamW with linear warm-up and cosine decay to zero at ``steps``, after clipping."""
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
