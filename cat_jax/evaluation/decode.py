"""Greedy decoding with a key/value cache, a batch of prompts at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, KVCache, empty_cache
from cat_jax.types import Array, Int

LENGTH_STEP = 32
"""Prompts are padded to a multiple of this, so that few lengths, and compilations, remain."""


def greedy_decode(
    model: CausalLM,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    batch_size: int = 64,
) -> list[list[int]]:
    """Continues each prompt with its most likely next token, again and again.

    All batches of a call have one shape: one compilation, which further calls reuse when the
    longest prompt rounds up to the same length.

    Args:
        model: the model.
        params: its parameters.
        prompts: token ids, at least one per prompt; the lengths may differ.
        max_new_tokens: length of the longest answer.
        stop_ids: tokens that end an answer; none of them is needed.
        batch_size: prompts that are decoded side by side.

    Returns:
        The new ids per prompt, up to but without the first stop token.

    Raises:
        InputError: an empty prompt, an id outside the vocabulary, or a size below one.
    """
    if min(max_new_tokens, batch_size) < 1:
        raise InputError(
            f"max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be at least 1"
        )
    _check_prompts(prompts, model.config.vocab_size)
    stops = np.asarray(stop_ids, np.int32)
    answers = []
    for tokens_BT, lengths_B in _batches(prompts, batch_size):
        ids_BT = _generate(model, params, tokens_BT, lengths_B, stops, max_new_tokens)
        answers += [_until_stop(ids, stop_ids) for ids in np.asarray(ids_BT).tolist()]
    return answers[: len(prompts)]


def _check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {index} is empty: there is no token to continue from")
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise InputError(
                f"prompt {index} has ids from {min(prompt)} to {max(prompt)}, but the model knows "
                f"0 to {vocab_size - 1}: use the tokenizer that belongs to it"
            )


def _batches(
    prompts: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prompts padded on the right [B, T], and their lengths [B]."""
    longest = max(map(len, prompts), default=0)
    shape = (batch_size, longest + -longest % LENGTH_STEP)
    for start in range(0, len(prompts), batch_size):
        rows = list(prompts[start : start + batch_size])
        # Copies complete the last batch: they end with their original, and hold nothing up.
        rows += [rows[-1]] * (batch_size - len(rows))
        tokens_BT = np.zeros(shape, np.int32)
        for row, prompt in zip(tokens_BT, rows, strict=True):
            row[: len(prompt)] = prompt
        yield tokens_BT, np.array([len(prompt) for prompt in rows], np.int32)


def _until_stop(ids: list[int], stop_ids: tuple[int, ...]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


@partial(jax.jit, static_argnames=("model", "max_new_tokens"))
def _generate(
    model: CausalLM,
    params: Any,
    tokens_BT: Int[Array, "B T"],
    lengths_B: Int[Array, " B"],
    stop_ids: Int[Array, " stops"],
    max_new_tokens: int,
) -> Int[Array, "B new"]:
    """Decode a batch; what follows a row's first stop token is arbitrary."""
    rows, width = tokens_BT.shape
    cache = empty_cache(model.config, rows, width + max_new_tokens)
    # The loop starts by feeding the last prompt token once more: so the logits of this pass stay
    # unused, and XLA drops [B, T, V], by far the largest array.
    _, cache = _forward(model, params, tokens_BT, cache)
    last_B = jnp.take_along_axis(tokens_BT, lengths_B[:, None] - 1, axis=1)[:, 0]

    def unfinished(state):
        step, _, _, _, done_B = state
        return (step < max_new_tokens) & ~done_B.all()

    def extend(state):
        step, last_B, cache, ids_BT, done_B = state
        # Right of a prompt the cache holds padding: written over from here on, and never read
        # before, because a query sees no slot beyond its own position.
        positions_B1 = (lengths_B - 1 + step)[:, None]
        logits_B1V, cache = _forward(model, params, last_B[:, None], cache, positions_B1)
        next_B = jnp.argmax(logits_B1V[:, 0], axis=-1).astype(jnp.int32)
        done_B |= (next_B[:, None] == stop_ids[None, :]).any(-1)
        return step + 1, next_B, cache, ids_BT.at[:, step].set(next_B), done_B

    ids_BT = jnp.zeros((rows, max_new_tokens), jnp.int32)
    start = (jnp.int32(0), last_B, cache, ids_BT, jnp.zeros(rows, bool))
    return jax.lax.while_loop(unfinished, extend, start)[3]


def _forward(
    model: CausalLM,
    params: Any,
    tokens_BT: Array,
    cache: KVCache,
    positions_BT: Array | None = None,
) -> tuple[Array, KVCache]:
    output: Any = model.apply({"params": params}, tokens_BT, cache=cache, positions=positions_BT)
    logits_BTV, aux = output
    return logits_BTV, aux.cache
