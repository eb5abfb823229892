"""The training objective: both losses on a batch, or on a part of one."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from cat_jax.config import AttentionDropout, Guidance, InputGradient, Regularizer
from cat_jax.data.batches import Batch
from cat_jax.losses import (
    GuidanceSums,
    LogitBudget,
    Mean,
    NextTokenSums,
    budgeted_next_token_sums,
    guidance_metrics,
    guidance_sums,
    guided_rows,
    guided_samples,
    next_tokens,
    sum_means,
)
from cat_jax.losses.attention_dropout import dropout_edits
from cat_jax.losses.input_gradient import (
    PERTURBATIONS,
    annotated_records,
    input_gradient_penalty,
)
from cat_jax.models import CausalLM
from cat_jax.types import Array, Int
from pallas_kernels import Partition

Metrics = dict[str, Array]


class LossSums(NamedTuple):
    """Undivided losses and metrics; those of the parts of a batch add up to those of the batch."""

    next_token: NextTokenSums
    guidance: GuidanceSums | None
    input_gradient: Mean | None = None


class Denominators(NamedTuple):
    """Denominators of the losses.

    Attributes:
        targets: Target tokens, int32 scalar.
        guided: Guided rows, or samples with ``reduce="sample"``; None without guidance.
        annotated: Annotated records; None without a penalty on input gradients.
    """

    targets: Int[Array, ""]
    guided: Int[Array, ""] | None
    annotated: Int[Array, ""] | None = None


def denominators(
    batch: Batch, guidance: Guidance | None, regularizer: Regularizer | None = None
) -> Denominators:
    """Count the denominators of a batch; they do not depend on the parameters."""
    _, predicted_BT = next_tokens(batch.tokens_BT, batch.target_mask_BT, batch.segment_ids_BT)
    guided = None
    if guidance is not None:
        guided = guided_rows(batch.causal_count_BT, batch.visible_count_BT)
        if guidance.reduce == "sample":
            guided = guided_samples(guided, batch.segment_ids_BT)
    annotated = annotated_records(batch) if isinstance(regularizer, InputGradient) else None
    return Denominators(predicted_BT.sum(), None if guided is None else guided.sum(), annotated)


def combined_loss(
    model: CausalLM,
    params: Any,
    batch: Batch,
    guidance: Guidance | None,
    gamma: ArrayLike,
    *,
    budget: LogitBudget,
    counts: Denominators | None = None,
    regularizer: Regularizer | None = None,
    key: Array | None = None,
) -> tuple[Array, LossSums]:
    """L = L_next_token + gamma * L_guidance (CAT, Han et al., EMNLP 2025).

    ``InputGradient`` adds weight * penalty (``cat_jax.losses.input_gradient``),
    ``AttentionDropout`` hides keys from annotated queries (``cat_jax.losses.attention_dropout``).

    Without guidance the causal mass is not computed: plain fine-tuning pays nothing for it.

    Args:
        model: Model.
        params: Its parameters.
        batch: Sequences; the segments of packed ones are separate samples.
        guidance: Second objective; None leaves it out.
        gamma: Weight of the guidance loss.
        budget: Which logits each device computes, and how many at a time.
        counts: Denominators of the batch that this one is a part of, so that the losses of its
            parts add up to its own; None counts this batch.
        regularizer: Another use of the annotation; None has none.
        key: Key of what the regularizer draws.

    Returns:
        The scalar loss L, and the undivided losses for ``compute_metrics``.
    """
    counts = denominators(batch, guidance, regularizer) if counts is None else counts
    batch = _padded(batch, model.partition)
    variables = {"params": params}
    if isinstance(regularizer, AttentionDropout):
        assert key is not None  # it draws
        variables |= dropout_edits(model.config, batch, regularizer, key)
    sums_of = _loss_sums
    if isinstance(regularizer, InputGradient):
        sums_of = _sums_with_input_gradient
    sums = sums_of(model, variables, batch, guidance, budget)
    loss = sums.next_token.loss.total / jnp.maximum(counts.targets, 1)
    if sums.guidance is not None:
        assert counts.guided is not None  # counted with the same guidance
        loss += gamma * sums.guidance.loss.total / jnp.maximum(counts.guided, 1)
    if isinstance(regularizer, InputGradient) and sums.input_gradient is not None:
        assert counts.annotated is not None  # counted with the same regularizer
        total = sums.input_gradient.total
        loss += regularizer.weight * total / jnp.maximum(counts.annotated, 1)
    return loss, sums


def compute_metrics(
    sums: LossSums, gamma: ArrayLike, regularizer: Regularizer | None = None
) -> Metrics:
    """Return the losses and metrics of a whole batch, float32 scalars by name.

    Those of annotated queries are NaN where there are none: a mass of 0 would read as collapse.
    """
    next_token, guidance, input_gradient = sums
    metrics = {
        "loss": next_token.loss.value,
        "next_token_loss": next_token.loss.value,
        "token_accuracy": next_token.accuracy.value,
    }
    if isinstance(regularizer, InputGradient) and input_gradient is not None:
        metrics["loss"] += regularizer.weight * input_gradient.value
        is_known = input_gradient.count > 0
        metrics["input_gradient"] = jnp.where(is_known, input_gradient.value, jnp.nan)
    if guidance is None:
        return metrics
    metrics["loss"] += gamma * guidance.loss.value
    of_annotated = {"guidance_loss": guidance.loss.value} | guidance_metrics(guidance)
    metrics |= {
        name: jnp.where(guidance.mass.count > 0, value, jnp.nan)
        for name, value in of_annotated.items()
    }
    return metrics | {"annotated_share": guidance.guided.value, "gamma": jnp.asarray(gamma)}


def _sums_with_input_gradient(
    model: CausalLM, variables: Any, batch: Batch, guidance: Guidance | None, budget: LogitBudget
) -> LossSums:
    """Differentiate the next-token loss with respect to something added to the embeddings."""

    def loss(added_BTD: Array) -> tuple[Array, LossSums]:
        added = variables | {PERTURBATIONS: {"embedded": added_BTD}}
        sums = _loss_sums(model, added, batch, guidance, budget)
        return sums.next_token.loss.total, sums

    config = model.config
    nothing_BTD = jnp.zeros((*batch.tokens_BT.shape, config.width), config.dtype)
    with jax.named_scope("input_gradient"):
        gradient_BTD, sums = jax.grad(loss, has_aux=True)(nothing_BTD)
        return sums._replace(input_gradient=input_gradient_penalty(gradient_BTD, batch))


def _loss_sums(
    model: CausalLM, variables: Any, batch: Batch, guidance: Guidance | None, budget: LogitBudget
) -> LossSums:
    q_bits, k_bits = (None, None) if guidance is None else (batch.q_bits_BTW, batch.k_bits_BTW)
    with jax.named_scope("forward"):
        output: Any = model.apply(
            variables,
            batch.tokens_BT,
            q_bits=q_bits,
            k_bits=k_bits,
            segment_ids=batch.segment_ids_BT,
            positions=batch.positions_BT,
            method="hidden_states",
        )
        hidden_BTD, aux = output
    with jax.named_scope("next_token_loss"):
        next_token = _next_token_sums(model, variables["params"], hidden_BTD, batch, budget)
    if guidance is None:
        return LossSums(next_token, None)
    with jax.named_scope("guidance_loss"):
        counts = (batch.causal_count_BT, batch.visible_count_BT)
        guided = guidance_sums(aux.mass, *counts, guidance, batch.segment_ids_BT)
    return LossSums(next_token, guided)


def _next_token_sums(
    model: CausalLM, params: Any, hidden_BTD: Array, batch: Batch, budget: LogitBudget
) -> NextTokenSums:
    """Compute the next-token loss, on each device for its own sequences and positions.

    Left to the partitioner, the devices would sum the gradient of the output matrix after every
    chunk. Mapped over copies of the matrix, one per device, they sum it once.
    """
    targets = next_tokens(batch.tokens_BT, batch.target_mask_BT, batch.segment_ids_BT)
    name = "embed" if model.config.tie_embeddings else "unembed"
    output = {name: params[name]}

    def sums(output: Any, hidden_BTD: Array, *targets: Array) -> NextTokenSums:
        unembed = partial(_apply, model, output, method="logits")
        return budgeted_next_token_sums(unembed, hidden_BTD, *targets, budget=budget)

    partition = model.partition
    axes = () if partition is None else (*partition.batch_axes, *partition.sequence_axes)
    if partition is None or not axes:
        return sums(output, hidden_BTD, *targets)
    over_batch, over_positions = (
        partition.devices(a) for a in (partition.batch_axes, partition.sequence_axes)
    )
    devices = over_batch * over_positions

    def copies(x: Array) -> Array:
        split = P(axes, *[P.UNCONSTRAINED] * x.ndim)
        copied = jnp.broadcast_to(x, (devices, *x.shape))
        return jax.lax.with_sharding_constraint(copied, NamedSharding(partition.mesh, split))

    def share(x_BT: Array) -> Array:
        B, T, *rest = x_BT.shape
        b, t = B // over_batch, T // over_positions
        parts = x_BT.reshape(over_batch, b, over_positions, t, *rest).swapaxes(1, 2)
        return parts.reshape(devices, b, t, *rest)

    on_each = jax.vmap(sums, spmd_axis_name=axes)
    return sum_means(
        on_each(jax.tree.map(copies, output), *(share(x) for x in (hidden_BTD, *targets)))
    )


def _padded(batch: Batch, partition: Partition | None) -> Batch:
    """Pad the positions to a multiple of the devices that share them."""
    devices = 1 if partition is None else partition.devices(partition.sequence_axes)
    missing = -batch.tokens_BT.shape[1] % devices

    def pad(x_BT: Array) -> Array:
        return jnp.pad(x_BT, [(0, 0), (0, missing)] + [(0, 0)] * (x_BT.ndim - 2))

    return jax.tree.map(pad, batch) if missing else batch


def _apply(model: CausalLM, params: Any, *args: Any, **kwargs: Any) -> Any:
    return model.apply({"params": params}, *args, **kwargs)
