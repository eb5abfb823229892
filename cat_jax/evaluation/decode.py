"""Decoding with a key/value cache, a batch of prompts at a time."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from cat_jax.errors import InputError
from cat_jax.evaluation.decode_steps import BEHIND, IsOver, decode_batch
from cat_jax.evaluation.prompt_batches import FirstIds, PromptBatch, allowed_first, prompt_batches
from cat_jax.evaluation.sampling import GREEDY, Sampling
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.models.projection import has_whole_rows


def generate(
    model: CausalLM,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    first_ids: FirstIds = None,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    batch_size: int = 64,
    is_over: IsOver | None = None,
) -> list[list[int]]:
    """Continue each prompt token by token: greedily, unless ``sampling`` says otherwise.

    An answer depends on the place of its prompt in ``prompts`` and on the seed, not on
    ``batch_size`` or the other prompts. All batches of a call have one shape, so that their
    programs are compiled once; further calls reuse them when their longest prompt has the same
    ``padded_length``, their prompts fill a batch, or the same power of two, and, from eight prompts
    on, as many eighths of the batch's rows.

    Args:
        model: The model.
        params: Its parameters.
        prompts: Token ids without padding, at least one per prompt; lengths may differ.
        max_new_tokens: Largest number of new tokens. An answer also ends at the model's last
            position, ``model.config.max_positions``.
        stop_ids: Tokens that end an answer; may be empty.
        first_ids: Tokens with which the answer to each prompt may begin (see
            ``cat_jax.data.prompts``); None, of a prompt or at all, is every token.
        sampling: Temperature and filters.
        seed: Seed of sampling; 0 to 2**32 - 1.
        batch_size: Prompts that are decoded side by side.
        is_over: Tells of the ids of an answer so far whether it is over, such as by the text that
            they spell. It is asked every few steps, so that answers may be longer by these.

    Returns:
        The new ids per prompt, up to but without the first stop token.

    Raises:
        InputError: An empty prompt, one that leaves the model no position, an id outside the
            vocabulary, a size below one, or a seed out of range.
    """
    _check(prompts, model.config, max_new_tokens, batch_size, seed)
    most = _most_new_tokens(prompts, model.config, max_new_tokens)
    answers = []
    for batch in _batches(model, prompts, batch_size, seed, first_ids):
        ids_BT = decode_batch(model, params, batch, _stops(stop_ids), most, most, sampling, is_over)
        answers += [until_stop(ids, (*stop_ids, BEHIND)) for ids in ids_BT.tolist()]
    room = [model.config.max_positions - len(prompt) for prompt in prompts]
    return [ids[:length] for ids, length in zip(answers, room, strict=False)]


def warm_up(
    model: CausalLM,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    first_ids: FirstIds = None,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
) -> None:
    """Compile what ``generate`` runs with the same arguments, so that its time can be measured.

    Raises:
        InputError: As ``generate``.
    """
    _check(prompts, model.config, max_new_tokens, batch_size, seed=0)
    most = _most_new_tokens(prompts, model.config, max_new_tokens)
    for batch in islice(_batches(model, prompts, batch_size, 0, first_ids), 1):
        decode_batch(model, params, batch, _stops(stop_ids), 1, most, sampling)


def _batches(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    seed: int,
    first_ids: FirstIds,
) -> Iterator[PromptBatch]:
    allowed, pack = allowed_first(first_ids, model.config), has_whole_rows(model.partition)
    return prompt_batches(prompts, batch_size, seed, allowed, pack=pack)


def _check(
    prompts: Sequence[Sequence[int]],
    config: ModelConfig,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> None:
    if min(max_new_tokens, batch_size) < 1:
        raise InputError(
            f"max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be at least 1"
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must be from 0 to 2**32 - 1, got {seed}")
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {index} is empty: there is no token to continue from")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise InputError(
                f"prompt {index} has ids from {min(prompt)} to {max(prompt)}, but the model knows "
                f"0 to {config.vocab_size - 1}: use the tokenizer that belongs to it"
            )
        if len(prompt) >= config.max_positions:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens and leaves no room for an answer: the "
                f"model reads at most {config.max_positions} tokens; shorten the prompt"
            )


def _most_new_tokens(
    prompts: Sequence[Sequence[int]], config: ModelConfig, max_new_tokens: int
) -> int:
    """Return the largest number of new tokens of any prompt."""
    return min(max_new_tokens, config.max_positions - min(map(len, prompts), default=1))


def _stops(stop_ids: Sequence[int]) -> np.ndarray:
    return np.asarray(stop_ids, np.int32)


def until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the ids before the first stop token."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
