"""The second objective of causal attention tuning: attention guided to the causes.

Everything is a function of the causal mass m of a query row, the attention probability on its
annotated keys (CAT, Han et al., EMNLP 2025): with |C| annotated and |N| other visible keys, the
mean attention is a1 = m / |C| on causes and a0 = (1 - m) / |N| elsewhere, and r = a1 / a0.
"""

from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from cat_jax.config import Form, Reduce, Scope
from cat_jax.losses.mean import Mean, mean_where
from cat_jax.types import Array, Bool, Float, Int

_SMALLEST = 1e-9  # keeps quotients and logarithms finite, with finite gradients


def attention_guidance_loss(
    mass_NBHQ: Float[Array, "N B H Q"],
    causal_count_BQ: Int[Array, "B Q"],
    visible_count_BQ: Int[Array, "B Q"],
    *,
    form: Form = "hinge",
    alpha: float = 2.0,
    scope: Scope = "mean",
    reduce: Reduce = "row",
    layers: tuple[int, ...] | None = None,
    segment_ids: Int[Array, "B Q"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Penalises rows whose attention is not drawn to their causes.

    A row counts when it has both causes and other visible keys; a row with r >= alpha costs
    nothing but stays in the denominator. ``mass_nll`` = -log m has no threshold.

    Args:
        mass_NBHQ: causal mass per layer and head, float32 in [0, 1].
        causal_count_BQ: |C|, annotated keys each row sees, int32.
        visible_count_BQ: |C| + |N|, keys each row sees, int32.
        form: ``hinge`` alpha - r; ``div`` -log(1 + a1) / log(1 + a0); ``div2``
            -log(1 + a1 / (1 + a0)); ``nll`` -a1 / (a1 + a0); ``mass_nll`` -log m.
        alpha: the ratio r from which a row is left alone.
        scope: what must meet the constraint: the ``mean`` of all maps (the paper), the mean map
            of each ``layer``, or each ``head``.
        reduce: ``row`` averages the loss over rows; ``sample`` averages the statistics of a
            sample's rows first, then the loss over samples.
        layers: constrain only these layers.
        segment_ids: of packed rows; positions of one sample stand together and share an id.

    Returns:
        The scalar loss (0 when no row counts) and the metrics ``causal_mass`` (mean m over
        counted rows), ``attention_ratio`` (mean a1 over mean a0) and ``satisfied`` (share of
        counted rows with r >= alpha).

    Raises:
        ValueError: an unknown form, scope or reduction.
    """
    terms = guidance_sums(
        mass_NBHQ,
        causal_count_BQ,
        visible_count_BQ,
        form=form,
        alpha=alpha,
        scope=scope,
        reduce=reduce,
        layers=layers,
        segment_ids=segment_ids,
    )
    return terms.loss.value, guidance_metrics(terms)


class GuidanceSums(NamedTuple):
    """What the loss and its metrics are made of; ``loss`` counts rows or samples, others rows."""

    loss: Mean
    mass: Mean
    a1: Mean
    a0: Mean
    satisfied: Mean


def guidance_sums(
    mass_NBHQ: Array,
    causal_count_BQ: Array,
    visible_count_BQ: Array,
    *,
    form: Form,
    alpha: float,
    scope: Scope,
    reduce: Reduce,
    layers: tuple[int, ...] | None,
    segment_ids: Array | None,
) -> GuidanceSums:
    """``attention_guidance_loss`` before it divides, so that the parts of a batch add up."""
    for name, value, choices in (
        ("form", form, Form),
        ("scope", scope, Scope),
        ("reduce", reduce, Reduce),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {value!r}")
    mass_SBQ = _scoped_mass(mass_NBHQ, scope, layers)
    valid_BQ = guided_rows(causal_count_BQ, visible_count_BQ)
    rows = _row_statistics(mass_SBQ, causal_count_BQ, visible_count_BQ - causal_count_BQ)
    metrics = (rows.mass_SBQ, rows.a1_SBQ, rows.a0_SBQ, rows.ratio_SBQ >= alpha)
    counted = valid_BQ
    if reduce == "sample":
        rows = _sample_means(rows, valid_BQ, segment_ids)
        counted = guided_samples(valid_BQ, segment_ids)
    loss = mean_where(counted, _penalty(rows, form, alpha))
    return GuidanceSums(loss, *(mean_where(valid_BQ, jax.lax.stop_gradient(x)) for x in metrics))


def guidance_metrics(terms: GuidanceSums) -> dict[str, Array]:
    """The metrics of ``attention_guidance_loss``."""
    return {
        "causal_mass": terms.mass.value,
        "attention_ratio": terms.a1.value / jnp.maximum(terms.a0.value, _SMALLEST),
        "satisfied": terms.satisfied.value,
    }


def guided_rows(causal_count_BQ: Array, visible_count_BQ: Array) -> Bool[Array, "B Q"]:
    """The rows that count: with causes, and with other visible keys."""
    return (causal_count_BQ > 0) & (causal_count_BQ < visible_count_BQ)


def guided_samples(valid_BQ: Array, segment_ids: Array | None) -> Bool[Array, "B samples"]:
    """The samples that have a row that counts; without segments, a row of the batch is one."""
    return _sample_sums(valid_BQ.astype(jnp.int32), segment_ids) > 0


class RowStatistics(NamedTuple):
    """Of each query row: m, the mean attention on causes and elsewhere, and their ratio."""

    mass_SBQ: Array
    a1_SBQ: Array
    a0_SBQ: Array
    ratio_SBQ: Array


def _penalty(rows: RowStatistics, form: Form, alpha: float) -> Array:
    """The value of each row before any reduction."""
    mass, a1, a0, ratio = rows
    if form == "mass_nll":
        return -jnp.log(jnp.maximum(mass, _SMALLEST))
    value = {
        "hinge": lambda: alpha - ratio,
        "div": lambda: -jnp.log1p(a1) / jnp.log1p(jnp.maximum(a0, _SMALLEST)),
        "div2": lambda: -jnp.log1p(a1 / (1 + a0)),
        "nll": lambda: -a1 / (a1 + a0),
    }[form]()
    return jnp.where(ratio >= alpha, 0.0, value)


def _scoped_mass(mass_NBHQ: Array, scope: Scope, layers: tuple[int, ...] | None) -> Array:
    """Averages the maps that meet the constraint together; S counts the separate constraints."""
    if layers is not None:
        mass_NBHQ = mass_NBHQ[jnp.asarray(layers)]
    if scope == "mean":
        return mass_NBHQ.mean(axis=(0, 2))[None]
    if scope == "layer":
        return mass_NBHQ.mean(axis=2)
    N, B, H, Q = mass_NBHQ.shape
    # Heads in front: devices that split them keep their own.
    return mass_NBHQ.transpose(2, 0, 1, 3).reshape(H * N, B, Q)


def _row_statistics(mass_SBQ: Array, causes_BQ: Array, others_BQ: Array) -> RowStatistics:
    a1_SBQ = mass_SBQ / jnp.maximum(causes_BQ, 1)[None]
    a0_SBQ = jnp.maximum(1.0 - mass_SBQ, 0.0) / jnp.maximum(others_BQ, 1)[None]
    return RowStatistics(mass_SBQ, a1_SBQ, a0_SBQ, a1_SBQ / jnp.maximum(a0_SBQ, _SMALLEST))


def _sample_means(rows: RowStatistics, valid_BQ: Array, segment_ids: Array | None) -> RowStatistics:
    """The means over the rows of each sample that count, [S, B, samples]."""
    count = jnp.maximum(_sample_sums(valid_BQ.astype(jnp.int32), segment_ids), 1)[None]
    kept = (jnp.where(valid_BQ[None], x, 0.0) for x in rows)
    return RowStatistics(*(_sample_sums(x, segment_ids) / count for x in kept))


def _sample_sums(x_BQ: Array, segment_ids: Array | None) -> Array:
    """Sums over the positions of each sample; leading axes stay."""
    if segment_ids is None:
        return x_BQ.sum(-1, keepdims=True)
    borders_BQ = segment_ids[:, 1:] != segment_ids[:, :-1]
    samples_BQ = jnp.pad(jnp.cumsum(borders_BQ, axis=-1), ((0, 0), (1, 0)))
    sums = partial(jax.ops.segment_sum, num_segments=x_BQ.shape[-1], indices_are_sorted=True)
    stacked = x_BQ.reshape(-1, *samples_BQ.shape)
    return jax.vmap(jax.vmap(sums), (0, None))(stacked, samples_BQ).reshape(x_BQ.shape)
