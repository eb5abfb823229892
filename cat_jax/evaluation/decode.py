"""Decoding with a key/value cache, a batch of prompts at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.evaluation.sampling import GREEDY, Sampling, sample_tokens
from cat_jax.models import CausalLM, KVCache, ModelConfig, empty_cache
from cat_jax.sharding import replicate
from cat_jax.types import Array, Int

LENGTH_STEP = 32

FirstIds = Sequence[Sequence[int] | None] | None


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
) -> list[list[int]]:
    """Continue each prompt token by token: greedily, unless ``sampling`` says otherwise.

    An answer depends on the place of its prompt in ``prompts`` and on the seed, not on
    ``batch_size`` or the other prompts. All batches of a call have one shape: one compilation,
    which further calls reuse when their longest prompt has the same ``padded_length`` and their
    prompts fill a batch, or the same power of two.

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

    Returns:
        The new ids per prompt, up to but without the first stop token.

    Raises:
        InputError: An empty prompt, one that leaves the model no position, an id outside the
            vocabulary, a size below one, or a seed out of range.
    """
    _check(prompts, model.config, max_new_tokens, batch_size, seed)
    most = _most_new_tokens(prompts, model.config, max_new_tokens)
    answers = []
    for batch in _batches(prompts, batch_size, seed, _allowed(first_ids, model.config)):
        ids_BT = _decode(model, params, batch, _stops(stop_ids), most, most, sampling)
        answers += [until_stop(ids, stop_ids) for ids in np.asarray(ids_BT).tolist()]
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
    batches = _batches(prompts, batch_size, 0, _allowed(first_ids, model.config))
    for batch in islice(batches, 1):
        jax.block_until_ready(_decode(model, params, batch, _stops(stop_ids), 1, most, sampling))


def padded_length(length: int) -> int:
    """Return the width to which prompts of at most ``length`` tokens are padded.

    Multiples of 32 up to 256 and four widths per doubling from there: few compilations, and at
    most a quarter more tokens in a long prompt.
    """
    step = max(LENGTH_STEP, 2 ** ((length - 1).bit_length() - 3))
    return length + -length % step


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


class _Batch(NamedTuple):
    """Prompts padded on the right [B, T], their lengths [B], and the keys of their draws [B].

    ``first_BV`` [B, V] tells with which tokens the answers may begin; None where all of them may.
    """

    tokens_BT: Int[Array, "B T"]
    lengths_B: Int[Array, " B"]
    keys_B: Array
    first_BV: Array | None


def _allowed(first_ids: FirstIds, config: ModelConfig) -> Callable[[int], np.ndarray] | None:
    """Return what gives the first tokens of the answer to a prompt, as bool [V]; None: any."""
    if first_ids is None or all(ids is None for ids in first_ids):
        return None

    def of(index: int) -> np.ndarray:
        ids = first_ids[index]
        every = np.arange(config.vocab_size)
        return np.ones(len(every), bool) if ids is None else np.isin(every, ids)

    return of


def _batches(
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    seed: int,
    allowed: Callable[[int], np.ndarray] | None = None,
) -> Iterator[_Batch]:
    width = padded_length(max(map(len, prompts), default=1))
    batch_size = min(batch_size, 1 << (len(prompts) - 1).bit_length())
    draw_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))
    for start in range(0, len(prompts), batch_size):
        # Copies complete the last batch: they end with their original, and hold nothing up.
        indices_B = np.minimum(np.arange(start, start + batch_size), len(prompts) - 1)
        tokens_BT = np.zeros((batch_size, width), np.int32)
        for tokens_T, index in zip(tokens_BT, indices_B, strict=True):
            tokens_T[: len(prompts[index])] = prompts[index]
        lengths_B = jnp.array([len(prompts[index]) for index in indices_B], jnp.int32)
        first_BV = allowed and jnp.asarray([allowed(index) for index in indices_B])
        yield _Batch(jnp.asarray(tokens_BT), lengths_B, draw_keys(indices_B), first_BV)


def _stops(stop_ids: Sequence[int]) -> np.ndarray:
    return np.asarray(stop_ids, np.int32)


def until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the ids before the first stop token."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


@partial(jax.jit, static_argnames=("model", "max_new_tokens", "sampling"))
def _decode(
    model: CausalLM,
    params: Any,
    batch: _Batch,
    stop_ids: Int[Array, " stops"],
    steps: Int[Array, ""] | int,
    max_new_tokens: int,
    sampling: Sampling,
) -> Int[Array, "B new"]:
    """Take ``steps`` of ``max_new_tokens``; what follows a first stop token is arbitrary."""
    tokens_BT, lengths_B, keys_B, first_BV = batch
    size, width = tokens_BT.shape
    room_B = model.config.max_positions - lengths_B
    cache = empty_cache(model.config, size, width + max_new_tokens)
    # The loop starts by feeding the last prompt token once more: so the logits of this pass stay
    # unused, and XLA drops [B, T, V], by far the largest array.
    _, cache = _forward(model, params, tokens_BT, cache)
    last_B = jnp.take_along_axis(tokens_BT, lengths_B[:, None] - 1, axis=1)[:, 0]

    def unfinished(state):
        step, _, _, _, done_B = state
        return (step < steps) & ~done_B.all()

    def extend(state):
        step, last_B, cache, ids_BT, done_B = state
        # Right of a prompt the cache holds padding: written over from here on, and never read
        # before, because a query sees no slot beyond its own position.
        positions_B1 = (lengths_B - 1 + step)[:, None]
        logits_B1V, cache = _forward(model, params, last_B[:, None], cache, positions_B1)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        logits_BV = logits_B1V[:, 0]
        if first_BV is not None:
            logits_BV = jnp.where((step > 0) | first_BV, logits_BV, -jnp.inf)
        next_B = sample_tokens(step_keys_B, logits_BV, sampling)
        done_B |= (next_B[:, None] == stop_ids[None, :]).any(-1) | (step + 1 >= room_B)
        return step + 1, next_B, cache, ids_BT.at[:, step].set(next_B), done_B

    ids_BT = jnp.zeros((size, max_new_tokens), jnp.int32)
    start = (jnp.int32(0), last_B, cache, ids_BT, jnp.zeros(size, bool))
    return replicate(jax.lax.while_loop(unfinished, extend, start)[3], model.partition)


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
