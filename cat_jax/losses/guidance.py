"""Guidance loss, the second objective of causal attention tuning (CAT, Han et al., EMNLP 2025).

For a row i of an attention map (a query), the visible keys are C(i), its annotated causes, and
N(i), all others. The loss is a function of the causal mass m, the attention probability on C(i)::

    a1 = m / |C|          mean attention on a cause
    a0 = (1 - m) / |N|    mean attention on another key
    r  = a1 / a0

Rows without causes or without other keys are not guided. From the mass of every layer and head,
the loss is computed in four steps: average the maps that are constrained together (``scope``),
compute the statistics above, average them within samples (``reduce="sample"`` only), and average
the penalties of all guided rows or samples.

Axes: S separate constraints; B, Q, N and H as in ``cat_jax.types``.
"""

from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from cat_jax.config import AnyForm, Form, Guidance, GuidanceForm, Reduce, Scope
from cat_jax.losses.mean import Mean, mean_where
from cat_jax.types import Array, Bool, Float, Int

_SMALLEST = 1e-9  # keeps quotients and logarithms finite, with finite gradients


def attention_guidance_loss(
    mass_NBHQ: Float[Array, "N B H Q"],
    causal_count_BQ: Int[Array, "B Q"],
    visible_count_BQ: Int[Array, "B Q"],
    *,
    form: AnyForm = "hinge",
    alpha: float = 2.0,
    scope: Scope = "mean",
    reduce: Reduce = "row",
    layers: tuple[int, ...] | None = None,
    segment_ids: Int[Array, "B Q"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Penalise guided rows whose attention is not drawn to their causes.

    ``form`` may be a function ``form(mass, causal_count, visible_count) -> penalty`` of three
    arrays of one shape, [constraints, B, Q]: the mass (float32) and the counts (int32) of every
    row under every constraint. ``alpha`` does not apply to it. What it returns for rows that are
    not guided is ignored; they are given as a row with mass 0.5 on one of two keys, so that a
    logarithm or quotient stays finite there. For example, a penalty on mass that is less than
    three times what uniform attention puts on the causes::

        >>> import jax, jax.numpy as jnp
        >>> from cat_jax.losses import attention_guidance_loss
        >>> def above_uniform(mass, causal_count, visible_count):
        ...     return jax.nn.relu(3 * causal_count / visible_count - mass)
        >>> mass_NBHQ = jnp.full((2, 1, 4, 3), 0.5)  # 2 layers, 1 sequence, 4 heads, 3 queries
        >>> causal_count_BQ = jnp.array([[0, 1, 1]])
        >>> visible_count_BQ = jnp.array([[1, 2, 3]])
        >>> loss, metrics = attention_guidance_loss(
        ...     mass_NBHQ, causal_count_BQ, visible_count_BQ, form=above_uniform
        ... )
        >>> print(loss)  # mean of 3 * 1/2 - 0.5 and 3 * 1/3 - 0.5
        0.75

    Args:
        mass_NBHQ: Causal mass m per layer and head, float32 in [0, 1].
        causal_count_BQ: |C|, annotated keys that each query sees, int32.
        visible_count_BQ: |C| + |N|, keys that each query sees, int32.
        form: Penalty of a row: ``hinge`` alpha - r; ``div`` -log(1 + a1) / log(1 + a0); ``div2``
            -log(1 + a1 / (1 + a0)); ``nll`` -a1 / (a1 + a0); ``mass_nll`` -log m; or a function.
        alpha: Ratio r from which a row costs nothing, though it still counts in the mean. It does
            not apply to ``mass_nll``.
        scope: What must meet the constraint: the ``mean`` of all maps (the paper), the mean map
            of each ``layer``, or the map of each ``head``.
        reduce: ``row`` averages penalties over rows. ``sample`` averages m, a1, a0 and r over each
            sample's rows first, then the penalties of these means over samples; functions do not
            support it, because counts have no such mean.
        layers: Constrained layers; None constrains all.
        segment_ids: Sample of each position of packed sequences, int32; the positions of a sample
            are contiguous. None makes every sequence one sample.

    Returns:
        The scalar loss (0 without guided rows) and three metrics over guided rows:
        ``causal_mass``, the mean m; ``attention_ratio``, mean a1 over mean a0; ``satisfied``, the
        share of rows with r >= alpha.

    Raises:
        ValueError: An unknown form, scope or reduction; a function with ``reduce="sample"``, or
            one that returns another shape.
    """
    guidance = Guidance(form=form, alpha=alpha, scope=scope, reduce=reduce, layers=layers)
    sums = guidance_sums(mass_NBHQ, causal_count_BQ, visible_count_BQ, guidance, segment_ids)
    return sums.loss.value, guidance_metrics(sums)


class GuidanceSums(NamedTuple):
    """Undivided loss and statistics; those of the parts of a batch add up to those of the batch.

    Attributes:
        loss: Penalty, of guided rows or samples as ``reduce`` says.
        mass: Causal mass m of guided rows, as the next.
        a1: Mean attention on a cause.
        a0: Mean attention on another key.
        satisfied: Whether r >= alpha.
        guided: Whether a row is guided, of all rows but padding.
    """

    loss: Mean
    mass: Mean
    a1: Mean
    a0: Mean
    satisfied: Mean
    guided: Mean


def guidance_sums(
    mass_NBHQ: Float[Array, "N B H Q"],
    causal_count_BQ: Int[Array, "B Q"],
    visible_count_BQ: Int[Array, "B Q"],
    guidance: Guidance,
    segment_ids: Int[Array, "B Q"] | None = None,
) -> GuidanceSums:
    """Compute ``attention_guidance_loss`` up to the division; ``guidance`` holds its options."""
    _check_options(guidance)
    form, alpha = guidance.form, guidance.alpha
    mass_SBQ = _constrained_mass(mass_NBHQ, guidance.scope, guidance.layers)
    guided_BQ = guided_rows(causal_count_BQ, visible_count_BQ)
    rows = _statistics(mass_SBQ, causal_count_BQ, visible_count_BQ - causal_count_BQ)
    if callable(form):
        penalty = _custom_penalty(form, mass_SBQ, causal_count_BQ, visible_count_BQ)
        loss = mean_where(guided_BQ, penalty)
    elif guidance.reduce == "sample":
        samples = _sample_means(rows, guided_BQ, segment_ids)
        loss = mean_where(guided_samples(guided_BQ, segment_ids), _penalty(samples, form, alpha))
    else:
        loss = mean_where(guided_BQ, _penalty(rows, form, alpha))
    metrics = (rows.mass, rows.a1, rows.a0, rows.ratio >= alpha)
    means = (mean_where(guided_BQ, jax.lax.stop_gradient(x)) for x in metrics)
    return GuidanceSums(loss, *means, guided=mean_where(visible_count_BQ > 0, guided_BQ))


def guidance_metrics(sums: GuidanceSums) -> dict[str, Array]:
    """Return the metrics of ``attention_guidance_loss``."""
    return {
        "causal_mass": sums.mass.value,
        "attention_ratio": sums.a1.value / jnp.maximum(sums.a0.value, _SMALLEST),
        "satisfied": sums.satisfied.value,
    }


def guided_rows(causal_count_BQ: Array, visible_count_BQ: Array) -> Bool[Array, "B Q"]:
    """Return which rows are guided: those that see causes and other keys."""
    return (causal_count_BQ > 0) & (causal_count_BQ < visible_count_BQ)


def guided_samples(guided_BQ: Array, segment_ids: Array | None) -> Bool[Array, "B samples"]:
    """Return which samples have a guided row; without segments, each sequence is one sample."""
    return _sample_sums(guided_BQ.astype(jnp.int32), segment_ids) > 0


class _Statistics(NamedTuple):
    """m, a1, a0 and r of rows [S, B, Q], or their means over samples [S, B, samples]."""

    mass: Array
    a1: Array
    a0: Array
    ratio: Array


def _check_options(guidance: Guidance) -> None:
    custom = callable(guidance.form)
    for name, choices in (("form", Form), ("scope", Scope), ("reduce", Reduce)):
        value = getattr(guidance, name)
        if value not in get_args(choices) and not (custom and name == "form"):
            raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {value!r}")
    if custom and guidance.reduce == "sample":
        raise ValueError('a function as form needs reduce="row": counts have no mean of a sample')


def _constrained_mass(mass_NBHQ: Array, scope: Scope, layers: tuple[int, ...] | None) -> Array:
    """Average the maps that meet a constraint together, [S, B, Q]."""
    if layers is not None:
        mass_NBHQ = mass_NBHQ[jnp.asarray(layers)]
    if scope == "mean":
        return mass_NBHQ.mean(axis=(0, 2))[None]
    if scope == "layer":
        return mass_NBHQ.mean(axis=2)
    N, B, H, Q = mass_NBHQ.shape
    # Heads in front: devices that split them keep their own.
    return mass_NBHQ.transpose(2, 0, 1, 3).reshape(H * N, B, Q)


def _statistics(mass_SBQ: Array, causes_BQ: Array, others_BQ: Array) -> _Statistics:
    a1_SBQ = mass_SBQ / jnp.maximum(causes_BQ, 1)[None]
    a0_SBQ = jnp.maximum(1.0 - mass_SBQ, 0.0) / jnp.maximum(others_BQ, 1)[None]
    return _Statistics(mass_SBQ, a1_SBQ, a0_SBQ, a1_SBQ / jnp.maximum(a0_SBQ, _SMALLEST))


def _penalty(statistics: _Statistics, form: Form, alpha: float) -> Array:
    mass, a1, a0, ratio = statistics
    if form == "mass_nll":
        return -jnp.log(jnp.maximum(mass, _SMALLEST))
    value = {
        "hinge": lambda: alpha - ratio,
        "div": lambda: -jnp.log1p(a1) / jnp.log1p(jnp.maximum(a0, _SMALLEST)),
        "div2": lambda: -jnp.log1p(a1 / (1 + a0)),
        "nll": lambda: -a1 / (a1 + a0),
    }[form]()
    return jnp.where(ratio >= alpha, 0.0, value)


def _custom_penalty(
    form: GuidanceForm, mass_SBQ: Array, causal_count_BQ: Array, visible_count_BQ: Array
) -> Array:
    # An infinite gradient at an unguided row would reach the parameters as 0 * inf = NaN.
    guided_BQ = guided_rows(causal_count_BQ, visible_count_BQ)
    mass_SBQ = jnp.where(guided_BQ[None], mass_SBQ, 0.5)
    counts = (
        jnp.broadcast_to(jnp.where(guided_BQ, count_BQ, other), mass_SBQ.shape)
        for count_BQ, other in ((causal_count_BQ, 1), (visible_count_BQ, 2))
    )
    penalty_SBQ = form(mass_SBQ, *counts)
    if jnp.shape(penalty_SBQ) != mass_SBQ.shape:
        raise ValueError(
            f"form must return a penalty for each entry of the mass, {mass_SBQ.shape}, not an "
            f"array of shape {jnp.shape(penalty_SBQ)}"
        )
    return penalty_SBQ


def _sample_means(rows: _Statistics, guided_BQ: Array, segment_ids: Array | None) -> _Statistics:
    """Average over the guided rows of each sample, [S, B, samples]."""
    count = jnp.maximum(_sample_sums(guided_BQ.astype(jnp.int32), segment_ids), 1)[None]
    kept = (jnp.where(guided_BQ[None], x, 0.0) for x in rows)
    return _Statistics(*(_sample_sums(x, segment_ids) / count for x in kept))


def _sample_sums(x_BQ: Array, segment_ids: Array | None) -> Array:
    """Sum over the positions of each sample, [..., B, Q] to [..., B, samples]."""
    if segment_ids is None:
        return x_BQ.sum(-1, keepdims=True)
    # As many samples as positions, most of them empty: shapes may not depend on values.
    borders_BQ = segment_ids[:, 1:] != segment_ids[:, :-1]
    samples_BQ = jnp.pad(jnp.cumsum(borders_BQ, axis=-1), ((0, 0), (1, 0)))
    sums = partial(jax.ops.segment_sum, num_segments=x_BQ.shape[-1], indices_are_sorted=True)
    stacked = x_BQ.reshape(-1, *samples_BQ.shape)
    return jax.vmap(jax.vmap(sums), (0, None))(stacked, samples_BQ).reshape(x_BQ.shape)
