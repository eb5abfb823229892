"""Full attention maps, for analysis only: training never builds them."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from transformers import PreTrainedTokenizerBase

from cat_jax.data.encoding import check_offsets
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
    """Return the attention probabilities of every layer and head.

    Args:
        model: Model.
        params: Its parameters.
        tokens_BT: Token ids, int32.
        segment_ids: Segment of each position, int32; queries attend only within their own.
        limit_bytes: Largest result that is computed.

    Returns:
        [N, B, H, T, T] float32; the last axis (keys) sums to one.

    Raises:
        InputError: The maps would take more than ``limit_bytes``.
    """
    sequences, tokens = tokens_BT.shape
    _check_size(model.config, sequences, tokens, limit_bytes)
    return _maps(model, params, tokens_BT, segment_ids)


class AttentionReading(NamedTuple):
    """Attention maps of a text, with the tokens on their axes.

    Attributes:
        tokens: Text of each of the T tokens. Tokens that share the bytes of a character all show
            it; special tokens that the tokenizer adds show their names.
        maps_NBHTT: Maps from ``attention_maps``, B = 1.
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
    """Return the attention probabilities of every layer and head over the tokens of a text.

    Args:
        model: Model.
        params: Its parameters.
        tokenizer: Fast tokenizer of the model.
        text: Text to read.
        limit_bytes: Largest result that is computed.

    Returns:
        The tokens, special ones that the tokenizer adds included, and the maps.

    Raises:
        InputError: A tokenizer without offsets or with a larger vocabulary than the model's, a
            text without tokens, or one whose maps would take more than ``limit_bytes``.
    """
    ids, tokens = _tokens(tokenizer, text)
    if not ids:
        raise InputError("the text has no tokens; give one with at least a word")
    if max(ids) >= model.config.vocab_size:
        raise InputError(
            f"the text has ids up to {max(ids)}, but the model knows 0 to "
            f"{model.config.vocab_size - 1}; use the tokenizer that belongs to the model"
        )
    maps_NBHTT = attention_maps(model, params, jnp.array([ids]), limit_bytes=limit_bytes)
    return AttentionReading(tokens, maps_NBHTT)


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[str]]:
    """Return the token ids of a text and the text of each token."""
    check_offsets(tokenizer)
    encoding = tokenizer(text, return_offsets_mapping=True)
    # An added special token covers no characters.
    tokens = [
        text[start:end] or str(tokenizer.convert_ids_to_tokens(token))
        for token, (start, end) in zip(encoding.input_ids, encoding.offset_mapping, strict=True)
    ]
    return encoding.input_ids, tokens


@partial(jax.jit, static_argnames="model")
def _maps(model: CausalLM, params: Any, tokens_BT: Array, segment_ids: Array | None) -> Array:
    output: Any = model.apply(
        {"params": params}, tokens_BT, segment_ids=segment_ids, mutable=[MAPS]
    )
    _, taps = output
    return replicate(taps[MAPS]["layers"]["attention"]["probs"], model.partition)


def _check_size(config: ModelConfig, sequences: int, tokens: int, limit_bytes: int) -> None:
    pair_bytes = 4 * config.num_layers * config.num_heads
    size = pair_bytes * sequences * tokens**2
    if size <= limit_bytes:
        return
    fitting_sequences = limit_bytes // (pair_bytes * tokens**2)
    fitting_tokens = math.isqrt(limit_bytes // (pair_bytes * sequences))
    fewer = f"[{fitting_sequences}, {tokens}] or " if fitting_sequences else ""
    raise InputError(
        f"the attention maps of tokens [{sequences}, {tokens}] take {size / GIB:.3g} GiB, above "
        f"the limit of {limit_bytes / GIB:.3g} GiB: tokens {fewer}[{sequences}, {fitting_tokens}] "
        "fit"
    )
