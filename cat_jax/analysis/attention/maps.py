"""Attention maps as arrays, whole or in rows, for analysis only: training never builds them."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.models.attention import MAPS, ROWS
from cat_jax.ranges import Bytes, check_number
from cat_jax.sharding import replicate
from cat_jax.types import Array, Float, Int

GIB = 2**30


def attention_maps(
    model: CausalLM,
    params: Any,
    tokens_BT: Int[Array, "B T"],
    *,
    segment_ids: Int[Array, "B T"] | None = None,
    positions: Int[Array, "B T"] | None = None,
    interventions: Mapping[str, Any] | None = None,
    limit_bytes: int = 4 * GIB,
) -> Float[Array, "N B H T T"]:
    """Return the attention probabilities of every layer and head.

    Args:
        model: Model.
        params: Its parameters.
        tokens_BT: Token ids, int32.
        segment_ids: Segment of each position, int32; queries attend only within their own.
        positions: Positions of the tokens; None counts from 0.
        interventions: Collections for the forward pass (``cat_jax.models.edits``).
        limit_bytes: Largest result that is computed.

    Returns:
        [N, B, H, T, T] float32; the last axis (keys) sums to one.

    Raises:
        InputError: The maps would take more than ``limit_bytes``.
    """
    sequences, tokens = tokens_BT.shape
    _check_size(model.config, sequences, tokens, limit_bytes)
    inputs = (tokens_BT, segment_ids, positions)
    return _tapped(model, params, inputs, dict(interventions or {}), None)


def attention_rows(
    model: CausalLM,
    params: Any,
    tokens_BT: Int[Array, "B T"],
    queries_BR: Int[Array, "B R"],
    *,
    segment_ids: Int[Array, "B T"] | None = None,
    positions: Int[Array, "B T"] | None = None,
    interventions: Mapping[str, Any] | None = None,
    limit_bytes: int = 4 * GIB,
) -> Float[Array, "N B H R T"]:
    """Return the attention probabilities of chosen queries: rows of ``attention_maps``.

    The model runs with its own attention implementation, which need not build any map; beside it,
    the rows are computed from the layer's queries and keys, in O(R T) memory. (With edited scores
    the model itself builds the maps of a layer at a time, whatever its implementation.)

    Args:
        model: Model.
        params: Its parameters.
        tokens_BT: Token ids, int32.
        queries_BR: Positions of the queries, int32, of each sequence its own.
        segment_ids: Segment of each position, int32; queries attend only within their own.
        positions: Positions of the tokens; None counts from 0.
        interventions: Collections for the forward pass (``cat_jax.models.edits``).
        limit_bytes: Largest result that is computed.

    Returns:
        [N, B, H, R, T] float32.

    Raises:
        InputError: A query is not in the sequence, or the rows would take more than
            ``limit_bytes``.
    """
    sequences, tokens = tokens_BT.shape
    rows_BR = np.asarray(queries_BR, np.int32)
    if rows_BR.ndim != 2 or len(rows_BR) != sequences or not rows_BR.size:
        raise InputError(
            f"the queries of tokens [{sequences}, {tokens}] are positions [{sequences}, R], at "
            f"least one of each sequence, got shape {rows_BR.shape}"
        )
    if rows_BR.min() < 0 or rows_BR.max() >= tokens:
        raise InputError(
            f"queries have positions from 0 to {tokens - 1}, got {rows_BR.min()} to {rows_BR.max()}"
        )
    check_number("limit_bytes", limit_bytes, Bytes)
    row_bytes = 4 * model.config.num_layers * model.config.num_heads * sequences * tokens
    if row_bytes * rows_BR.shape[1] > limit_bytes:
        raise InputError(
            f"{rows_BR.shape[1]} queries of tokens [{sequences}, {tokens}] take "
            f"{_size(row_bytes * rows_BR.shape[1])}, above the limit of {_size(limit_bytes)}: "
            f"{limit_bytes // row_bytes} fit"
        )
    inputs = (tokens_BT, segment_ids, positions)
    rows = jnp.asarray(rows_BR)
    return _tapped(model, params, inputs, dict(interventions or {}), rows)


@partial(jax.jit, static_argnames="model")
def _tapped(
    model: CausalLM,
    params: Any,
    inputs: tuple[Array, Array | None, Array | None],
    interventions: Mapping[str, Any],
    rows_BR: Array | None,
) -> Array:
    """Return the maps or, where their queries are given, rows."""
    tokens_BT, segment_ids, positions = inputs
    tap, given = MAPS, {}
    if rows_BR is not None:
        rows_NBR = jnp.broadcast_to(rows_BR[None], (model.config.num_layers, *rows_BR.shape))
        tap, given = ROWS, {ROWS: {"layers": {"attention": {"queries": rows_NBR}}}}
    output: Any = model.apply(
        {"params": params, **interventions, **given},
        tokens_BT,
        segment_ids=segment_ids,
        positions=positions,
        method="hidden_states",
        mutable=[tap],
    )
    _, taps = output
    return replicate(taps[tap]["layers"]["attention"]["probs"], model.partition)


def _check_size(config: ModelConfig, sequences: int, tokens: int, limit_bytes: int) -> None:
    check_number("limit_bytes", limit_bytes, Bytes)
    pair_bytes = 4 * config.num_layers * config.num_heads
    size = pair_bytes * sequences * tokens**2
    if size <= limit_bytes:
        return
    fitting_sequences = limit_bytes // (pair_bytes * tokens**2)
    fitting_tokens = math.isqrt(limit_bytes // (pair_bytes * sequences))
    fewer = f"[{fitting_sequences}, {tokens}] or " if fitting_sequences else ""
    raise InputError(
        f"the attention maps of tokens [{sequences}, {tokens}] take {_size(size)}, above the "
        f"limit of {_size(limit_bytes)}: tokens {fewer}[{sequences}, {fitting_tokens}] "
        "fit; or read chosen queries alone"
    )


def _size(count: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
