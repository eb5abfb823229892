"""The second objective of causal attention tuning: attention guided to the causes.

Everything is a function of the causal mass m of a query row, the attention probability on its
annotated keys (CAT, Han et al., EMNLP 2025): with |C| annotated and |N| other visible keys, the
mean attention is a1 = m / |C| on causes and a0 = (1 - m) / |N| elsewhere, and r = a1 / a0.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from cat_jax.types import Array, Bool, Float, Int

Form = Literal["hinge", "div", "div2", "nll", "mass_nll"]
Scope = Literal["mean", "layer", "head"]
Reduce = Literal["row", "sample"]

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

    Returns:
        The scalar loss (0 when no row counts) and the metrics ``causal_mass`` (mean m over
        counted rows), ``attention_ratio`` (mean a1 over mean a0) and ``satisfied`` (share of
        counted rows with r >= alpha).

    Raises:
        ValueError: an unknown form, scope or reduction.
    """
    for name, value, choices in (
        ("form", form, Form),
        ("scope", scope, Scope),
        ("reduce", reduce, Reduce),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {value!r}")
    mass_SBQ = _scoped_mass(mass_NBHQ, scope, layers)
    valid_BQ = (causal_count_BQ > 0) & (causal_count_BQ < visible_count_BQ)
    rows = _row_statistics(mass_SBQ, causal_count_BQ, visible_count_BQ - causal_count_BQ)
    metrics = _metrics(rows, valid_BQ, alpha)
    if reduce == "sample":
        rows = RowStatistics(*(_masked_mean(x, valid_BQ, axis=-1)[..., None] for x in rows))
        valid_BQ = valid_BQ.any(axis=-1, keepdims=True)
    return _masked_mean(_penalty(rows, form, alpha), valid_BQ), metrics


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
    return mass_NBHQ.swapaxes(1, 2).reshape(N * H, B, Q)


def _row_statistics(mass_SBQ: Array, causes_BQ: Array, others_BQ: Array) -> RowStatistics:
    a1_SBQ = mass_SBQ / jnp.maximum(causes_BQ, 1)[None]
    a0_SBQ = jnp.maximum(1.0 - mass_SBQ, 0.0) / jnp.maximum(others_BQ, 1)[None]
    return RowStatistics(mass_SBQ, a1_SBQ, a0_SBQ, a1_SBQ / jnp.maximum(a0_SBQ, _SMALLEST))


def _metrics(rows: RowStatistics, valid_BQ: Bool[Array, "B Q"], alpha: float) -> dict[str, Array]:
    a1, a0 = _masked_mean(rows.a1_SBQ, valid_BQ), _masked_mean(rows.a0_SBQ, valid_BQ)
    metrics = {
        "causal_mass": _masked_mean(rows.mass_SBQ, valid_BQ),
        "attention_ratio": a1 / jnp.maximum(a0, _SMALLEST),
        "satisfied": _masked_mean(rows.ratio_SBQ >= alpha, valid_BQ),
    }
    return jax.lax.stop_gradient(metrics)


def _masked_mean(x_SBQ: Array, valid_BQ: Array, axis: int | None = None) -> Array:
    """Mean over the valid rows (of all constraints); 0 where none is valid."""
    valid_SBQ = jnp.broadcast_to(valid_BQ[None], x_SBQ.shape)
    total = jnp.where(valid_SBQ, x_SBQ, 0.0).sum(axis)
    return total / jnp.maximum(valid_SBQ.sum(axis), 1)
