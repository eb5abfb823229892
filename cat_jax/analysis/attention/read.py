"""The attention that a model pays in a text or a record."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.analysis.attention.maps import GIB, attention_maps, attention_rows
from cat_jax.analysis.attention.named import AXES, AttentionMaps
from cat_jax.analysis.attention.text import Places, ReadText, read_text
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.models import CausalLM


def read_attention(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    text: str | Record,
    *,
    queries: Places | None = None,
    spurious: Places = (),
    interventions: Mapping[str, Any] | None = None,
    limit_bytes: int = 4 * GIB,
) -> AttentionMaps:
    """Return the attention probabilities of every layer and head over the tokens of a text.

    Args:
        model: Model.
        params: Its parameters.
        tokenizer: Fast tokenizer of the model.
        text: Text to read; or a record, which is read with its answer, and whose annotation says
            what the tokens are.
        queries: Queries to read alone: positions, or words, of which the queries that predict
            them. Each costs O(T) memory, and the model runs with its own attention implementation,
            so that a text may be as long as the model reads. None reads all, in O(T^2).
        spurious: Words or positions of the text that only correlate with the answer
            (``Task.spurious_spans(record)``).
        interventions: Collections for the forward pass, such as ``attention_edits`` makes; the
            attention is that of the edited model.
        limit_bytes: Largest result that is computed.

    Returns:
        Values [layers, heads, queries, keys] and the tokens, special ones that the tokenizer adds
        included.

    Raises:
        InputError: A tokenizer without offsets or with a larger vocabulary than the model's, a
            text without tokens or longer than the model reads, words that it lacks, or maps that
            would take more than ``limit_bytes``.
    """
    read = read_text(text, tokenizer, spurious)
    tokens_BT = checked_ids(model, read)
    options: Any = {"interventions": interventions, "limit_bytes": limit_bytes}
    if queries is None:
        rows = list(range(len(read.tokens)))
        values_NBHQK = attention_maps(model, params, tokens_BT, **options)
    else:
        rows = read.queries(queries)
        values_NBHQK = attention_rows(model, params, tokens_BT, jnp.array([rows]), **options)
    return AttentionMaps(np.asarray(values_NBHQK[:, 0]), AXES, read, np.array(rows))


def checked_ids(model: CausalLM, read: ReadText) -> Any:
    """Return the token ids of a text, int32 [1, T].

    Raises:
        InputError: The model does not know one, or reads no text as long, or is no CausalLM.
    """
    if not isinstance(model, CausalLM):
        raise InputError(
            f"a CausalLM reads the text, got a {type(model).__name__}; of a LanguageModel give "
            ".model, .params and .tokenizer"
        )
    ids = read.encoding.ids
    if len(ids) > model.config.max_positions:
        raise InputError(
            f"the text has {len(ids)} tokens, and the model reads {model.config.max_positions}; "
            "shorten it"
        )
    if max(ids) >= model.config.vocab_size:
        raise InputError(
            f"the text has ids up to {max(ids)}, but the model knows 0 to "
            f"{model.config.vocab_size - 1}; use the tokenizer that belongs to the model"
        )
    return jnp.array([ids], jnp.int32)
