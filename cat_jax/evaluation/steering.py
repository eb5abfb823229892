"""Answers of a model whose attention is steered to the causes while it reads.

Source: PASTA, Zhang et al. 2023 (arXiv 2311.02262): attention on what is not emphasised is scaled
down by a factor, and each row is scaled to sum to 1 again.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example
from cat_jax.errors import InputError
from cat_jax.evaluation.answers import EXTRA_TOKENS, answer_range, answer_stop_ids
from cat_jax.evaluation.decode import until_stop
from cat_jax.evaluation.prompt_batches import padded_length
from cat_jax.models import Aux, CausalLM, attention_edits
from cat_jax.sharding import replicate
from cat_jax.types import Array, Bool

Steered = Literal["all", "answer"]


def steered_answers(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    factor: float = 0.01,
    heads: Bool[np.ndarray, "N H"] | None = None,
    queries: Steered = "all",
    end_ids: Collection[int] = (),
    batch_size: int = 64,
) -> list[list[int]]:
    """Decode greedy answers while attention is steered to the annotated causes of the answer.

    A token that is no cause weighs ``factor`` times what it would, in the rows of the steered
    queries that see a cause. The annotation of each prompt must be known, as with PASTA's
    emphasised words: this is what knowledge of the causes can do without training. Each new token
    is a pass over the whole sequence, from full maps (``attention_edits``).

    Args:
        model: The model.
        params: Its parameters.
        tokenizer: Its tokenizer.
        examples: Examples of one record each, with a prompt; one without annotated causes is
            answered as it is.
        factor: PASTA's alpha; 1 steers nothing.
        heads: Which heads are steered, [N, H]; None is all. PASTA chooses them on training data.
        queries: "all", as PASTA does, or those that predict the "answer" alone.
        end_ids: Tokens that end an answer, as in ``decode_answers``.
        batch_size: Prompts that are decoded at a time.

    Returns:
        Token ids without the end, as ``decode_answers`` gives them.

    Raises:
        InputError: The factor is not above 0, there are no such queries or heads, or a prompt
            leaves the model no position for an answer.
    """
    if not 0 < factor < np.inf:
        raise InputError(f"factor must be above 0 and finite, got {factor}")
    if queries not in get_args(Steered):
        raise InputError(f"queries must be one of {', '.join(get_args(Steered))}, not {queries!r}")
    shape = model.config.num_layers, model.config.num_heads
    chosen_NH = np.ones(shape, bool) if heads is None else np.asarray(heads, bool)
    if chosen_NH.shape != shape:
        raise InputError(f"heads must have one entry by layer and head, {shape}")
    ranges = [answer_range(example) for example in examples]
    room = [model.config.max_positions - found.start for found in ranges]
    if ranges and min(room) < 1:
        raise InputError(
            f"prompt {int(np.argmin(room))} leaves no room for an answer: the model reads at most "
            f"{model.config.max_positions} tokens; shorten it"
        )
    # Causes up by 1 / factor is all others down by factor: rows are scaled to sum to 1 again.
    gate_NH = np.where(chosen_NH, -np.log(factor), 0.0).astype(np.float32)
    stop_ids = answer_stop_ids(tokenizer, examples, end_ids)
    most = max(map(len, ranges), default=0) + EXTRA_TOKENS
    width = padded_length(max((found.start for found in ranges), default=1)) + most
    answers: list[list[int]] = []
    for start in range(0, len(examples), batch_size):
        part = list(examples[start : start + batch_size])
        full = part + part[-1:] * (batch_size - len(part))
        prompts = [_steered_prompt(example, width, queries) for example in full]
        tokens_BT, q_bits_BT, k_bits_BT = (np.stack(x) for x in zip(*prompts, strict=True))
        starts_B = np.array([answer_range(example).start for example in full], np.int32)
        bits = q_bits_BT[..., None], k_bits_BT[..., None]
        ids_BT = _decode(model, params, tokens_BT, starts_B, gate_NH, *bits, most)
        answers += np.asarray(ids_BT)[: len(part)].tolist()
    return [until_stop(ids[:length], stop_ids) for ids, length in zip(answers, room, strict=True)]


def _steered_prompt(
    example: Example, width: int, queries: Steered
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tokens and one bit of queries and keys, [width] each."""
    found = answer_range(example)
    answer_bits_W = np.bitwise_or.reduce(example.q_bits[found.start - 1 : found.stop - 1])
    causes_T = (example.k_bits[: found.start] & answer_bits_W).any(-1)
    tokens, q_bits, k_bits = (np.zeros(width, x) for x in (np.int32, np.uint32, np.uint32))
    tokens[: found.start] = example.tokens[: found.start]
    q_bits[0 if queries == "all" else found.start - 1 :] = 1
    k_bits[: found.start] = causes_T
    return tokens, q_bits, k_bits


@partial(jax.jit, static_argnums=(0, 7))
def _decode(
    model: CausalLM,
    params: Any,
    tokens_BT: Array,
    starts_B: Array,
    gate_NH: Array,
    q_bits_BTW: Array,
    k_bits_BTW: Array,
    most: int,
) -> Array:
    """Return the ``most`` most probable next tokens, one after the other, [B, most]."""
    edits = attention_edits(gate_NH, q_bits_BTW, k_bits_BTW)
    sequences_B = jnp.arange(len(tokens_BT))

    def step(tokens_BT: Array, done: Array) -> tuple[Array, Array]:
        at_B = starts_B + done
        output = model.apply({"params": params, **edits}, tokens_BT, method="hidden_states")
        hidden_BTD, _ = cast("tuple[Array, Aux]", output)
        last_B1D = hidden_BTD[sequences_B, at_B - 1][:, None]
        logits_B1V = cast("Array", model.apply({"params": params}, last_B1D, method="logits"))
        next_B = logits_B1V[:, 0].argmax(-1).astype(tokens_BT.dtype)
        return tokens_BT.at[sequences_B, at_B].set(next_B), next_B

    _, ids_TB = jax.lax.scan(step, tokens_BT, jnp.arange(most))
    return replicate(ids_TB.T, model.partition)
