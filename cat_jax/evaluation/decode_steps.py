"""The compiled programs of decoding: one reads prompts, one takes steps, one drops answers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.evaluation.prompt_batches import PromptBatch
from cat_jax.evaluation.sampling import Sampling, sample_tokens
from cat_jax.models import KEYS_VALUES, Cache, CausalLM, KVCache
from cat_jax.models.projection import has_whole_rows
from cat_jax.models.unstacked import is_on_one_cpu, unstack_layers
from cat_jax.sharding import replicate
from cat_jax.types import Array, Bool, Int
from pallas_kernels import select_implementation

WORTH_STEPS = 32
"""Steps ahead for which it is worth to compile a program for half a batch."""

ASK_STEPS = 16
"""Steps after which ``is_over`` is asked again."""

BEHIND = -1
"""Stands behind the tokens of an answer that ``is_over`` ended."""

IsOver = Callable[[list[int]], bool]


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


def decode_batch(
    model: CausalLM,
    params: Any,
    batch: PromptBatch,
    stop_ids: np.ndarray,
    steps: int,
    most: int,
    sampling: Sampling,
    is_over: IsOver | None = None,
) -> np.ndarray:
    """Return ids [B, most] of ``steps`` steps; what follows a first stop token is arbitrary.

    ``BEHIND`` follows where ``is_over`` ended an answer.
    """
    unstacked = is_on_one_cpu(params)
    state = _prefill(model, params, batch, stop_ids, most, sampling, unstacked)
    if most == 1:
        return np.asarray(state.ids_BT)
    layers = unstack_layers(params) if unstacked else params
    places_B = np.arange(len(batch.lengths_B))
    ids_BT = np.zeros((len(places_B), most), np.int32)
    ends_B = np.full(len(places_B), most)
    while True:
        ahead = steps if is_over is None else min(steps, int(state.step) + ASK_STEPS)
        state = _extend(model, layers, state, stop_ids, ahead, sampling)
        ids_BT[places_B] = np.asarray(state.ids_BT)
        done_B, step = np.array(state.done_B), int(state.step)
        if is_over is not None:
            running = np.flatnonzero(~done_B)
            over = [n for n in running if is_over(ids_BT[places_B[n], :step].tolist())]
            done_B[over], ends_B[places_B[over]] = True, step
            state = state._replace(done_B=jnp.asarray(done_B))
        if done_B.all() or step >= steps:
            ids_BT[np.arange(most) >= ends_B[:, None]] = BEHIND
            return ids_BT
        size = len(done_B)
        while size // 2 >= (~done_B).sum() and most - step >= WORTH_STEPS:
            size //= 2
        if size < len(done_B):
            kept = np.argsort(done_B, kind="stable")[:size]
            places_B, state = places_B[kept], _keep(state, kept)


@partial(jax.jit, static_argnames=("model", "most", "sampling", "unstacked"))
def _prefill(
    model: CausalLM,
    params: Any,
    batch: PromptBatch,
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
