"""Accuracy by decoding, the causal mass, and what an intervention changes."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, cast

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, stack_whole_batches
from cat_jax.evaluation.decode import generate
from cat_jax.losses import attention_guidance_loss, guided_rows
from cat_jax.models import Aux, CausalLM
from cat_jax.sharding import replicate


def answers(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = 256,
) -> list[str]:
    """Greedy answers to the examples' prompts, as text without surrounding space.

    An answer ends at the tokenizer's end token, or a few tokens after the longest right one.
    """
    borders = [int(example.target_mask.argmax()) for example in examples]
    prompts = [
        example.tokens[:border].tolist() for example, border in zip(examples, borders, strict=True)
    ]
    longest = max(len(e.tokens) - border for e, border in zip(examples, borders, strict=True))
    ids = generate(
        model,
        params,
        prompts,
        max_new_tokens=longest + 4,
        stop_ids=(cast("int", tokenizer.eos_token_id),),
        batch_size=batch_size,
    )
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def exact_match(given: Sequence[str], targets: Sequence[str]) -> float:
    """Share of answers equal to their target but for surrounding space."""
    return float(np.mean([a.strip() == t.strip() for a, t in zip(given, targets, strict=True)]))


def changed_answers(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of answers that an intervention changed; 0 for a model that ignores its object."""
    return 1.0 - exact_match(before, after)


def causal_mass(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> float:
    """Attention on annotated causes, averaged over layers, heads and annotated rows.

    Returns NaN when no row is annotated.
    """
    rows = stack_whole_batches(examples, batch_size)
    masses, weights = [], []
    for start in range(0, len(rows.tokens_BT), batch_size):
        batch = jax.tree.map(itemgetter(slice(start, start + batch_size)), rows)
        masses.append(float(_batch_mass(model, params, batch)))
        weights.append(int(guided_rows(batch.causal_count_BT, batch.visible_count_BT).sum()))
    return float(np.average(masses, weights=weights)) if sum(weights) else float("nan")


@partial(jax.jit, static_argnums=0)
def _batch_mass(model: CausalLM, params: Any, batch: Batch) -> jax.Array:
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
    return replicate(metrics["causal_mass"], model.partition)
