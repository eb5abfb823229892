"""What one forward pass over right answers shows: their log-probability and the causal mass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, stack_whole_batches
from cat_jax.evaluation.answers import answer_range
from cat_jax.evaluation.likelihood import summed_log_probabilities
from cat_jax.losses import attention_guidance_loss, guided_rows
from cat_jax.models import Aux, CausalLM
from cat_jax.sharding import replicate
from cat_jax.types import Array, Float


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
    return _measure(model, params, examples, batch_size, most=0)[0]


def measure_right_answers(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> tuple[CausalMass, np.ndarray]:
    """Measure the causal mass, and how probable each right answer is after its prompt.

    Args:
        model: The model.
        params: Its parameters.
        examples: Examples with a prompt; of a conversation the last turn is the answer.
        batch_size: Examples that are computed at a time.

    Returns:
        The causal mass, and log-probabilities [R] float64 in nats: the sum over the tokens of the
        answer, its end included.
    """
    asked = [replace(example, target_mask=_answer_mask(example)) for example in examples]
    most = max(int(example.target_mask.sum()) for example in asked)
    mass, log_probs = _measure(model, params, asked, batch_size, most)
    return mass, log_probs[: len(examples)]


def _answer_mask(example: Example) -> np.ndarray:
    answered = answer_range(example)
    positions = np.arange(len(example.tokens))
    return (positions >= answered.start) & (positions < answered.stop)


def _measure(
    model: CausalLM, params: Any, examples: Sequence[Example], batch_size: int, most: int
) -> tuple[CausalMass, np.ndarray]:
    stacked = stack_whole_batches(examples, batch_size)
    means, by_head, weights, log_probs = [], [], [], []
    for start in range(0, len(stacked.tokens_BT), batch_size):
        batch = jax.tree.map(itemgetter(slice(start, start + batch_size)), stacked)
        mean, mean_NH, log_B = jax.device_get(_measure_batch(model, params, batch, most))
        means.append(float(mean))
        by_head.append(mean_NH)
        weights.append(int(guided_rows(batch.causal_count_BT, batch.visible_count_BT).sum()))
        log_probs.append(np.asarray(log_B, np.float64))
    found = np.concatenate(log_probs)
    if not sum(weights):
        return CausalMass(float("nan"), np.full(by_head[0].shape, np.nan)), found
    mean_NH = np.average(by_head, axis=0, weights=weights)
    return CausalMass(float(np.average(means, weights=weights)), mean_NH), found


def causal_mass(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> float:
    """Return the mean causal mass over layers, heads and annotated rows; NaN if there are none."""
    return measure_causal_mass(model, params, examples, batch_size=batch_size).mean


def annotated_forward(
    model: CausalLM, params: Any, batch: Batch
) -> tuple[Float[Array, "B T D"], Float[Array, "N B H T"]]:
    """Return the hidden states, and the mass of every query on its annotated keys."""
    outputs = model.apply(
        {"params": params},
        batch.tokens_BT,
        q_bits=batch.q_bits_BTW,
        k_bits=batch.k_bits_BTW,
        segment_ids=batch.segment_ids_BT,
        positions=batch.positions_BT,
        method="hidden_states",
    )
    hidden_BTD, aux = cast("tuple[Array, Aux]", outputs)
    assert aux.mass is not None  # bits were given
    return hidden_BTD, aux.mass


@partial(jax.jit, static_argnums=(0, 3))
def _measure_batch(
    model: CausalLM, params: Any, batch: Batch, most: int
) -> tuple[Array, Array, Array]:
    """Return the mean mass, that of each layer and head, and log-probabilities, if any (most)."""
    hidden_BTD, mass_NBHT = annotated_forward(model, params, batch)
    _, metrics = attention_guidance_loss(mass_NBHT, batch.causal_count_BT, batch.visible_count_BT)
    guided_BT = guided_rows(batch.causal_count_BT, batch.visible_count_BT)
    sums_NH = jnp.where(guided_BT[None, :, None], mass_NBHT, 0.0).sum((1, 3))
    log_B = jnp.zeros(len(guided_BT))
    if most:
        log_B = summed_log_probabilities(model, params, hidden_BTD, batch, most)
    found = metrics["causal_mass"], sums_NH / jnp.maximum(guided_BT.sum(), 1), log_B
    mean, mean_NH, log_B = (replicate(x, model.partition) for x in found)
    return mean, mean_NH, log_B
