"""Full attention maps, for reading: training never builds them."""

import math
from functools import partial
from typing import Any

import jax

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.models.attention import MAPS
from cat_jax.types import Array, Float, Int

GIB = 2**30


def attention_maps(
    model: CausalLM,
    params: Any,
    tokens_BT: Int[Array, "B T"],
    *,
    segment_ids: Int[Array, "B T"] | None = None,
    limit_bytes: int = 4 * GIB,
) -> Float[Array, "N B H T T"]:
    """Attention probabilities of every layer and head.

    Args:
        model: the model.
        params: its parameters.
        tokens_BT: token ids.
        segment_ids: rows attend only within equal ids (packing).
        limit_bytes: the largest result that is computed.

    Returns:
        [N, B, H, T, T] float32; the last axis (keys) sums to one.

    Raises:
        InputError: the maps would take more than ``limit_bytes``.
    """
    rows, tokens = tokens_BT.shape
    _check_size(model.config, rows, tokens, limit_bytes)
    return _maps(model, params, tokens_BT, segment_ids)


@partial(jax.jit, static_argnames="model")
def _maps(model: CausalLM, params: Any, tokens_BT: Array, segment_ids: Array | None) -> Array:
    output: Any = model.apply(
        {"params": params}, tokens_BT, segment_ids=segment_ids, mutable=[MAPS]
    )
    _, taps = output
    return taps[MAPS]["layers"]["attention"]["probs"]


def _check_size(config: ModelConfig, rows: int, tokens: int, limit_bytes: int) -> None:
    pair_bytes = 4 * config.num_layers * config.num_heads
    size = pair_bytes * rows * tokens**2
    if size <= limit_bytes:
        return
    fitting_rows = limit_bytes // (pair_bytes * tokens**2)
    fitting_tokens = math.isqrt(limit_bytes // (pair_bytes * rows))
    by_rows = f"[{fitting_rows}, {tokens}] or " if fitting_rows else ""
    raise InputError(
        f"the attention maps of tokens [{rows}, {tokens}] take {size / GIB:.3g} GiB, above the "
        f"limit of {limit_bytes / GIB:.3g} GiB: tokens {by_rows}[{rows}, {fitting_tokens}] fit"
    )
