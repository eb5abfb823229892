"""How probable a model finds the right answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, common_shape, stack_examples
from cat_jax.evaluation.token_scores import token_scores
from cat_jax.losses import gather_targets, next_tokens
from cat_jax.models import Aux, CausalLM
from cat_jax.types import Array, Bool, Float

ROUND = 32
"""Sequences are padded to a multiple of this, so that few lengths are compiled."""


def answer_log_probabilities(
    model: CausalLM, params: Any, examples: Sequence[Example], *, batch_size: int = 64
) -> np.ndarray:
    """Return the log-probability of each example's answer, given its prompt.

    Args:
        model: The model.
        params: Its parameters.
        examples: Examples of one record each; all that is trained of one counts as its answer, its
            end token too.
        batch_size: Most examples that are computed at a time.

    Returns:
        [R] float64, in nats: the sum over the answer's tokens.
    """
    # Nothing predicts a first token.
    targets = [1 + np.flatnonzero(example.target_mask[1:]) for example in examples]
    sequences = [example.tokens for example in examples]
    found = np.zeros(len(examples))
    for number, scores in token_scores(model, params, sequences, targets, batch_size=batch_size):
        found[number] = scores.total
    return found


def batches(examples: Sequence[Example], batch_size: int) -> Iterator[Batch]:
    """Yield batches of one shape; the last one is filled up with its last example."""
    length, words = common_shape(examples)
    shape = -(-length // ROUND) * ROUND, words
    for start in range(0, len(examples), batch_size):
        chosen = list(examples[start : start + batch_size])
        yield stack_examples(chosen + chosen[-1:] * (batch_size - len(chosen)), shape)


class AnswerScore(NamedTuple):
    """How a model takes each sequence's target tokens, given all before them.

    Attributes:
        log_prob_B: Log-probability of the target tokens, their sum, in nats, float32.
        is_greedy_B: Whether each target token is the most probable one, so that greedy decoding
            gives them all.
    """

    log_prob_B: Float[Array, " B"]
    is_greedy_B: Bool[Array, " B"]


def score_answers(
    model: CausalLM,
    params: Any,
    batch: Batch,
    most: int,
    interventions: Mapping[str, Any] | None = None,
) -> AnswerScore:
    """Score the target tokens of each sequence in one pass; logits are computed for these alone.

    Args:
        model: The model.
        params: Its parameters.
        batch: The sequences.
        most: At least as many as the target tokens of each.
        interventions: Collections for the forward pass (``cat_jax.models.edits``).
    """
    output = model.apply(
        {"params": params, **(interventions or {})},
        batch.tokens_BT,
        segment_ids=batch.segment_ids_BT,
        positions=batch.positions_BT,
        method="hidden_states",
    )
    hidden_BTD, _ = cast("tuple[Array, Aux]", output)
    return _score(model, params, hidden_BTD, batch, most)


def summed_log_probabilities(
    model: CausalLM, params: Any, hidden_BTD: Array, batch: Batch, most: int
) -> Float[Array, " B"]:
    """Return the log-probability of each sequence's target tokens, [B] float32.

    Args:
        model: The model.
        params: Its parameters.
        hidden_BTD: Its hidden states.
        batch: The sequences.
        most: At least as many as the target tokens of each.
    """
    return _score(model, params, hidden_BTD, batch, most).log_prob_B


def _score(model: CausalLM, params: Any, hidden_BTD: Array, batch: Batch, most: int) -> AnswerScore:
    labels_BT, counted_BT = next_tokens(batch.tokens_BT, batch.target_mask_BT, batch.segment_ids_BT)
    hidden_BKD, labels_BK, counted_BK = gather_targets(hidden_BTD, labels_BT, counted_BT, most)
    logits_BKV = cast("Array", model.apply({"params": params}, hidden_BKD, method="logits"))
    log_BKV = jax.nn.log_softmax(logits_BKV)
    log_BK = jnp.take_along_axis(log_BKV, labels_BK[..., None], axis=2)[..., 0]
    is_greedy_BK = (logits_BKV.argmax(-1) == labels_BK) | ~counted_BK
    return AnswerScore(jnp.where(counted_BK, log_BK, 0.0).sum(1), is_greedy_BK.all(1))
