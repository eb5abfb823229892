"""Full attention maps, for reading: training never builds them."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from transformers import PreTrainedTokenizerBase

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.models.attention import MAPS
from cat_jax.sharding import replicate
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


class AttentionReading(NamedTuple):
    """Attention maps and the words on their axes.

    Attributes:
        tokens: the T pieces of the text that the tokenizer read. Tokens that share the bytes of
            a character all show it; special tokens that are not of the text show their names.
        maps_NBHTT: as ``attention_maps`` gives them, with B = 1.
    """

    tokens: list[str]
    maps_NBHTT: Float[Array, "N B H T T"]


def read_attention(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    limit_bytes: int = 4 * GIB,
) -> AttentionReading:
    """Attention probabilities of every layer and head over the tokens of a text.

    Args:
        model: the model.
        params: its parameters.
        tokenizer: the model's, a fast one.
        text: what to read.
        limit_bytes: as in ``attention_maps``.

    Returns:
        The tokens with the special ones that the tokenizer adds, and the maps.

    Raises:
        InputError: a tokenizer without offsets or of another vocabulary, a text without tokens,
            or one whose maps would take more than ``limit_bytes``.
    """
    ids, tokens = _pieces(tokenizer, text)
    if not ids:
        raise InputError("the text has no tokens: give one with at least a word")
    if max(ids) >= model.config.vocab_size:
        raise InputError(
            f"the text has ids up to {max(ids)}, but the model knows 0 to "
            f"{model.config.vocab_size - 1}: use the tokenizer that belongs to it"
        )
    maps_NBHTT = attention_maps(model, params, jnp.array([ids]), limit_bytes=limit_bytes)
    return AttentionReading(tokens, maps_NBHTT)


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[str]]:
    """The ids of a text and the piece of it that each stands for."""
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer "
            "(a folder with tokenizer.json)"
        )
    read = tokenizer(text, return_offsets_mapping=True)
    # A special token covers nothing of the text.
    tokens = [
        text[start:end] or str(tokenizer.convert_ids_to_tokens(token))
        for token, (start, end) in zip(read.input_ids, read.offset_mapping, strict=True)
    ]
    return read.input_ids, tokens


@partial(jax.jit, static_argnames="model")
def _maps(model: CausalLM, params: Any, tokens_BT: Array, segment_ids: Array | None) -> Array:
    output: Any = model.apply(
        {"params": params}, tokens_BT, segment_ids=segment_ids, mutable=[MAPS]
    )
    _, taps = output
    return replicate(taps[MAPS]["layers"]["attention"]["probs"], model.partition)


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
