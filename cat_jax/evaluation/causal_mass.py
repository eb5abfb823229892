"""The causal mass of a model on annotated examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, stack_whole_batches
from cat_jax.losses import attention_guidance_loss, guided_rows
from cat_jax.models import Aux, CausalLM
from cat_jax.sharding import replicate
from cat_jax.types import Array


@dataclass(frozen=True)
class CausalMass:
    """Attention on annotated causes, averaged over annotated rows; NaN where there are none.

    Attributes:
        mean: Mean over layers and heads.
        by_head_NH: Mean of each layer and head, [N, H].
    """

    mean: float
    by_head_NH: np.ndarray


def measure_causal_mass(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> CausalMass:
    """Measure the causal mass of every layer and head on the examples."""
    stacked = stack_whole_batches(examples, batch_size)
    means, by_head, weights = [], [], []
    for start in range(0, len(stacked.tokens_BT), batch_size):
        batch = jax.tree.map(itemgetter(slice(start, start + batch_size)), stacked)
        mean, mean_NH = jax.device_get(_batch_mass(model, params, batch))
        means.append(float(mean))
        by_head.append(mean_NH)
        weights.append(int(guided_rows(batch.causal_count_BT, batch.visible_count_BT).sum()))
    if not sum(weights):
        return CausalMass(float("nan"), np.full(by_head[0].shape, np.nan))
    return CausalMass(
        float(np.average(means, weights=weights)), np.average(by_head, axis=0, weights=weights)
    )


def causal_mass(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> float:
    """Return the mean causal mass over layers, heads and annotated rows; NaN if there are none."""
    return measure_causal_mass(model, params, examples, batch_size=batch_size).mean


@partial(jax.jit, static_argnums=0)
def _batch_mass(model: CausalLM, params: Any, batch: Batch) -> tuple[Array, Array]:
    outputs = model.apply(
        {"params": params},
        batch.tokens_BT,
        q_bits=batch.q_bits_BTW,
        k_bits=batch.k_bits_BTW,
        segment_ids=batch.segment_ids_BT,
        positions=batch.positions_BT,
        method="hidden_states",
    )
    _, aux = cast("tuple[jax.Array, Aux]", outputs)
    assert aux.mass is not None  # bits were given
    _, metrics = attention_guidance_loss(aux.mass, batch.causal_count_BT, batch.visible_count_BT)
    guided_BT = guided_rows(batch.causal_count_BT, batch.visible_count_BT)
    sums_NH = jnp.where(guided_BT[None, :, None], aux.mass, 0.0).sum((1, 3))
    mean_NH = sums_NH / jnp.maximum(guided_BT.sum(), 1)
    mean, mean_NH = metrics["causal_mass"], mean_NH
    return replicate(mean, model.partition), replicate(mean_NH, model.partition)
