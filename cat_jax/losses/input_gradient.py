"""Penalty on the gradient of the loss with respect to the input embeddings.

Source: Ross et al., "Right for the right reasons: training differentiable models by constraining
their explanations" (IJCAI 2017), eq. 1: the squared gradient at inputs that are known not to
matter. Here these are the prompt's tokens that are annotated as a cause of nothing; with x_j the
embedding of token j, and the record's loss the cross entropy summed over its target tokens::

    penalty of a record = sum over unannotated prompt tokens j of |d loss / d x_j|^2

averaged over the records with an annotation. Its own gradient is one of second order.
"""

import jax
import jax.numpy as jnp

from cat_jax.data.batches import Batch
from cat_jax.losses.guidance import guided_samples
from cat_jax.losses.mean import Mean
from cat_jax.types import Array, Bool, Float, Int

PERTURBATIONS = "perturbations"
"""Flax collection of what is added to activations; its gradient is that of the activations."""


def penalised_tokens(batch: Batch) -> Bool[Array, "B T"]:
    """Return which tokens are penalised: unannotated ones of the prompts of annotated records."""
    prompt_BT = ~batch.target_mask_BT & (batch.visible_count_BT > 0)
    cause_BT = (batch.k_bits_BTW != 0).any(-1)
    annotated_BT = batch.causal_count_BT > 0
    ids_BT = batch.segment_ids_BT
    if ids_BT is None:
        record_BT = annotated_BT.any(1, keepdims=True)
    else:
        length = ids_BT.shape[1]
        found = jax.vmap(lambda x, ids: jnp.zeros(length + 1, bool).at[ids].max(x)[ids])
        record_BT = found(annotated_BT, ids_BT)
    return prompt_BT & ~cause_BT & record_BT


def annotated_records(batch: Batch) -> Int[Array, ""]:
    """Return the number of records with an annotation, int32."""
    return guided_samples(batch.causal_count_BT > 0, batch.segment_ids_BT).sum()


def input_gradient_penalty(gradient_BTD: Float[Array, "B T D"], batch: Batch) -> Mean:
    """Return the penalty of the annotated records.

    Args:
        gradient_BTD: Gradient of the loss, summed over all target tokens, with respect to the
            embeddings.
        batch: The sequences; segments of packed ones are separate records.
    """
    squares_BT = jnp.square(gradient_BTD.astype(jnp.float32)).sum(-1)
    total = jnp.where(penalised_tokens(batch), squares_BT, 0.0).sum()
    return Mean(total, annotated_records(batch))
