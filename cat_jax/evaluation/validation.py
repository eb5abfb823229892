"""Losses of records that are not trained on."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cat_jax.config import Guidance
from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, stack_whole_batches
from cat_jax.losses import guided_rows
from cat_jax.losses.budget import logit_budget
from cat_jax.losses.objective import LossSums, combined_loss, compute_metrics
from cat_jax.models import CausalLM
from cat_jax.sharding import (
    BATCH_AXES,
    HEAD_AXES,
    SEQUENCE_AXES,
    process_indices,
    replicated,
    shard_batch,
)
from pallas_kernels import Partition

VALIDATION_METRICS = (
    "next_token_loss",
    "token_accuracy",
    "perplexity",
    "causal_mass",
    "guidance_loss",
)
"""All that a validation can measure; the last two need annotated records."""


def make_validation(
    model: CausalLM,
    examples: Sequence[Example],
    mesh: Mesh,
    guidance: Guidance | None,
    *,
    batch_size: int,
    logits_mib: int,
) -> Callable[[Any], dict[str, float]]:
    """Return a function from parameters to the metrics of all examples together.

    Sums and counts are added up over batches before they are divided, so that each token weighs
    the same and the batch size does not matter.

    Args:
        model: Model to evaluate.
        examples: Validation examples, at least one.
        mesh: Mesh on which the sequences of a batch are split.
        guidance: Second objective of the training, whose loss is reported too; None reports the
            causal mass alone. Examples without annotation have neither.
        batch_size: Sequences per batch; must divide among the devices.
        logits_mib: Memory for the logits of a device at a time.

    Returns:
        ``next_token_loss``, ``token_accuracy``, ``perplexity``, and for annotated examples
        ``causal_mass`` and with guidance ``guidance_loss``.
    """
    stacked = stack_whole_batches(examples, batch_size)
    annotated = bool(guided_rows(stacked.causal_count_BT, stacked.visible_count_BT).any())
    measured = (guidance or Guidance()) if annotated else None
    budget = logit_budget(examples, model.config.vocab_size, logits_mib)
    model = model.clone(partition=Partition(mesh, BATCH_AXES, HEAD_AXES, SEQUENCE_AXES))

    @jax.jit(out_shardings=replicated(mesh))
    def terms(params: Any, batch: Batch) -> LossSums:
        return combined_loss(model, params, batch, measured, 0.0, budget=budget)[1]

    own = process_indices(mesh, batch_size)

    def terms_of_batch(params: Any, start: int) -> LossSums:
        batch = jax.tree.map(itemgetter(start + own), stacked)
        return jax.tree.map(np.float64, jax.device_get(terms(params, shard_batch(batch, mesh))))

    names = ["next_token_loss", "token_accuracy"]
    if annotated:
        names += ["causal_mass"] if guidance is None else ["causal_mass", "guidance_loss"]

    def validate(params: Any) -> dict[str, float]:
        starts = range(0, len(stacked.tokens_BT), batch_size)
        parts = (terms_of_batch(params, start) for start in starts)
        total = reduce(lambda a, b: jax.tree.map(np.add, a, b), parts)
        values = compute_metrics(total, 0.0)
        chosen = {name: float(values[name]) for name in names}
        return chosen | {"perplexity": math.exp(min(chosen["next_token_loss"], 700.0))}

    return validate
