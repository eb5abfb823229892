"""Decoding with a key/value cache, a batch of prompts at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.evaluation.sampling import GREEDY, Sampling, sample_tokens
from cat_jax.models import KEYS_VALUES, Cache, CausalLM, KVCache, ModelConfig
from cat_jax.models.projection import has_whole_rows
from cat_jax.models.unstacked import is_on_one_cpu, unstack_layers
from cat_jax.sharding import replicate
from cat_jax.types import Array, Bool, Int
from pallas_kernels import select_implementation

LENGTH_STEP = 32
WORTH_STEPS = 32
"""Steps ahead for which it is worth to compile a program for half a batch."""

FEWEST_PACKED = 8
"""Prompts of a batch from which on several may share a row; of fewer each number of rows would be a
program of its own, for little."""

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

    Returns:
        The new ids per prompt, up to but without the first stop token.

    Raises:
        InputError: An empty prompt, one that leaves the model no position, an id outside the
            vocabulary, a size below one, or a seed out of range.
    """
    _check(prompts, model.config, max_new_tokens, batch_size, seed)
    most = _most_new_tokens(prompts, model.config, max_new_tokens)
    answers = []
    allowed, pack = _allowed(first_ids, model.config), has_whole_rows(model.partition)
    for batch in _batches(prompts, batch_size, seed, allowed, pack=pack):
        ids_BT = _decode(model, params, batch, _stops(stop_ids), most, most, sampling)
        answers += [until_stop(ids, stop_ids) for ids in ids_BT.tolist()]
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
    allowed, pack = _allowed(first_ids, model.config), has_whole_rows(model.partition)
    for batch in islice(_batches(prompts, batch_size, 0, allowed, pack=pack), 1):
        _decode(model, params, batch, _stops(stop_ids), 1, most, sampling)


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
    """Prompts packed into rows, for one pass through the model.

    Attributes:
        tokens_RT: Token ids; zeros behind the last prompt of a row.
        segment_ids_RT: Which prompt of its row a token belongs to, from 1; 0 is padding.
        positions_RT: Position of each token in its prompt.
        rows_B: Row of each prompt.
        starts_B: Where it starts there.
        lengths_B: Its length.
        keys_B: Keys of its draws.
        first_BV: With which tokens each answer may begin; None where all of them may.
    """

    tokens_RT: Int[Array, "R T"]
    segment_ids_RT: Int[Array, "R T"]
    positions_RT: Int[Array, "R T"]
    rows_B: Int[Array, " B"]
    starts_B: Int[Array, " B"]
    lengths_B: Int[Array, " B"]
    keys_B: Array
    first_BV: Array | None


class _State(NamedTuple):
    """What decoding has come to: ``step`` tokens of every answer.

    What follows a first stop token in ``ids_BT`` is arbitrary.
    """

    step: Int[Array, ""]
    last_B: Int[Array, " B"]
    cache: Cache
    ids_BT: Int[Array, "B T"]
    done_B: Bool[Array, " B"]
    lengths_B: Int[Array, " B"]
    keys_B: Array


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
    *,
    pack: bool = True,
) -> Iterator[_Batch]:
    """Yield batches of one shape; without ``pack`` each prompt has a row of its own."""
    width = padded_length(max(map(len, prompts), default=1))
    batch_size = min(batch_size, 1 << (len(prompts) - 1).bit_length())
    draw_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))
    pack = pack and batch_size >= FEWEST_PACKED
    batches = []
    for start in range(0, len(prompts), batch_size):
        # Copies complete the last batch: they end with their original, and hold nothing up.
        indices_B = np.minimum(np.arange(start, start + batch_size), len(prompts) - 1)
        lengths_B = np.array([len(prompts[index]) for index in indices_B])
        places = _places(lengths_B, width) if pack else (np.arange(batch_size), 0 * lengths_B)
        batches.append((indices_B, lengths_B, *places))
    # Few shapes: eighths of the batch.
    step = max(1, batch_size // 8)
    rows = max((int(rows_B.max()) + 1 for _, _, rows_B, _ in batches), default=0)
    rows += -rows % step
    for indices_B, lengths_B, rows_B, starts_B in batches:
        tokens_RT, segment_ids_RT, positions_RT = np.zeros((3, rows, width), np.int32)
        for n, (index, row, start) in enumerate(zip(indices_B, rows_B, starts_B, strict=True)):
            inside = slice(start, start + lengths_B[n])
            tokens_RT[row, inside] = prompts[index]
            segment_ids_RT[row, inside] = n + 1
            positions_RT[row, inside] = np.arange(lengths_B[n])
        first_BV = allowed and jnp.asarray([allowed(index) for index in indices_B])
        yield _Batch(
            jnp.asarray(tokens_RT),
            jnp.asarray(segment_ids_RT),
            jnp.asarray(positions_RT),
            jnp.asarray(rows_B, jnp.int32),
            jnp.asarray(starts_B, jnp.int32),
            jnp.asarray(lengths_B, jnp.int32),
            draw_keys(indices_B),
            first_BV,
        )


def _places(lengths_B: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and start of each prompt: long ones first, each in the first row with room."""
    rows_B, starts_B = np.zeros((2, len(lengths_B)), int)
    filled: list[int] = []
    for n in np.argsort(-lengths_B, kind="stable"):
        fits = (row for row, length in enumerate(filled) if length + lengths_B[n] <= width)
        row = next(fits, len(filled))
        if row == len(filled):
            filled.append(0)
        rows_B[n], starts_B[n] = row, filled[row]
        filled[row] += int(lengths_B[n])
    return rows_B, starts_B


def _stops(stop_ids: Sequence[int]) -> np.ndarray:
    return np.asarray(stop_ids, np.int32)


def until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Return the ids before the first stop token."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]


def _decode(
    model: CausalLM,
    params: Any,
    batch: _Batch,
    stop_ids: np.ndarray,
    steps: int,
    most: int,
    sampling: Sampling,
) -> np.ndarray:
    """Return ids [B, most] of ``steps`` steps; what follows a first stop token is arbitrary."""
    unstacked = is_on_one_cpu(params)
    state = _prefill(model, params, batch, stop_ids, most, sampling, unstacked)
    if most == 1:
        return np.asarray(state.ids_BT)
    layers = unstack_layers(params) if unstacked else params
    places_B = np.arange(len(batch.lengths_B))
    ids_BT = np.zeros((len(places_B), most), np.int32)
    while True:
        state = _extend(model, layers, state, stop_ids, steps, sampling)
        ids_BT[places_B] = np.asarray(state.ids_BT)
        done_B = np.asarray(state.done_B)
        if done_B.all() or int(state.step) >= steps:
            return ids_BT
        size = len(done_B)
        while size // 2 >= (~done_B).sum():
            size //= 2
        kept = np.argsort(done_B, kind="stable")[:size]
        places_B, state = places_B[kept], _keep(state, kept)


@partial(jax.jit, static_argnames=("model", "most", "sampling", "unstacked"))
def _prefill(
    model: CausalLM,
    params: Any,
    batch: _Batch,
    stop_ids: Int[Array, " stops"],
    most: int,
    sampling: Sampling,
    unstacked: bool,
) -> _State:
    """Read all prompts in one pass and take the first step."""
    width = batch.tokens_RT.shape[1]
    passed: Any = _reader(model, width).apply(
        {"params": params},
        batch.tokens_RT,
        segment_ids=batch.segment_ids_RT,
        positions=batch.positions_RT,
        mutable=[KEYS_VALUES],
        method="hidden_states",
    )
    (x_RTD, _), left = passed
    last_BD = x_RTD[batch.rows_B, batch.starts_B + batch.lengths_B - 1]
    logits_BV: Any = model.apply({"params": params}, last_BD, method="logits")
    if batch.first_BV is not None:
        logits_BV = jnp.where(batch.first_BV, logits_BV, -jnp.inf)
    first_B, done_B = _choose(
        logits_BV, 0, batch.keys_B, batch.lengths_B, stop_ids, sampling, model
    )
    places_BS = jnp.minimum(batch.starts_B[:, None] + jnp.arange(width)[None], width - 1)

    def by_prompt(x_NRTGC: Array) -> Array:
        """Return what each prompt left, with room for its answer: [N, B, G, S, C].

        Behind a prompt's own there is some other's: written over from there on, and never read
        before, because a query sees no slot beyond its own position.
        """
        x_NBSGC = x_NRTGC[:, batch.rows_B[:, None], places_BS]
        return jnp.pad(x_NBSGC.swapaxes(2, 3), [*[(0, 0)] * 3, (0, most), (0, 0)])

    taken = left[KEYS_VALUES]["layers"]["attention"]
    cache: Cache = KVCache(by_prompt(taken["key"]), by_prompt(taken["value"]))
    if unstacked:
        cache = tuple(jax.tree.map(itemgetter(n), cache) for n in range(model.config.num_layers))
    ids_BT = jnp.zeros((len(first_B), most), jnp.int32).at[:, 0].set(first_B)
    ids_BT = replicate(ids_BT, model.partition)
    return _State(jnp.int32(1), first_B, cache, ids_BT, done_B, batch.lengths_B, batch.keys_B)


def _reader(model: CausalLM, width: int) -> CausalLM:
    """Return the model with the attention for prompts, which no bits mark."""
    config, attention = model.config, "xla"  # which XLA splits over a mesh by itself
    if has_whole_rows(model.partition):
        attention = select_implementation(
            width, config.dtype, head_dim=config.head_dim, words=0, segments=True
        ).implementation
    return CausalLM(replace(config, attention=attention, remat="none"), model.partition)


@partial(jax.jit, static_argnames=("model", "sampling"), donate_argnames="state")
def _extend(
    model: CausalLM,
    params: Any,
    state: _State,
    stop_ids: Int[Array, " stops"],
    steps: Int[Array, ""] | int,
    sampling: Sampling,
) -> _State:
    """Go on to ``steps`` steps, or until all answers end, or so many that half a batch will do."""
    size, most = state.ids_BT.shape
    may_shrink = has_whole_rows(model.partition) and size > 1

    def goes_on(state: _State) -> Array:
        running = (state.step < steps) & ~state.done_B.all()
        if not may_shrink:
            return running
        few = (~state.done_B).sum() <= size // 2
        return running & ~(few & (most - state.step >= WORTH_STEPS))

    def take_step(state: _State) -> _State:
        # The newest token is the one at the position behind the prompt and the ones before.
        positions_B = state.lengths_B - 1 + state.step
        extended: Any = model.apply(
            {"params": params}, state.last_B, positions_B, state.cache, method="extend"
        )
        logits_BV, cache = extended
        next_B, done_B = _choose(
            logits_BV, state.step, state.keys_B, state.lengths_B, stop_ids, sampling, model
        )
        return state._replace(
            step=state.step + 1,
            last_B=next_B,
            cache=cache,
            ids_BT=state.ids_BT.at[:, state.step].set(next_B),
            done_B=state.done_B | done_B,
        )

    state = jax.lax.while_loop(goes_on, take_step, state)
    told = (state.step, state.ids_BT, state.done_B)
    step, ids_BT, done_B = (replicate(x, model.partition) for x in told)
    return state._replace(step=step, ids_BT=ids_BT, done_B=done_B)


def _choose(
    logits_BV: Array,
    step: Int[Array, ""] | int,
    keys_B: Array,
    lengths_B: Array,
    stop_ids: Array,
    sampling: Sampling,
    model: CausalLM,
) -> tuple[Array, Array]:
    """Return the next token of each answer, and whether it is the answer's last."""
    step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
    next_B = sample_tokens(step_keys_B, logits_BV, sampling)
    stops_B = (next_B[:, None] == stop_ids[None, :]).any(-1)
    return next_B, stops_B | (lengths_B + step + 1 >= model.config.max_positions)


@jax.jit
def _keep(state: _State, kept: Int[Array, " kept"]) -> _State:
    """Return the state of some answers."""
    at = 0 if isinstance(state.cache, tuple) else 1
    return _State(
        step=state.step,
        last_B=state.last_B[kept],
        cache=jax.tree.map(lambda x: jnp.take(x, kept, axis=at), state.cache),
        ids_BT=state.ids_BT[kept],
        done_B=state.done_B[kept],
        lengths_B=state.lengths_B[kept],
        keys_B=state.keys_B[kept],
    )
