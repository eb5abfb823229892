"""Which attributes of a Hugging Face configuration matter: read, refused or ignored.

The classes of transformers compute what their own attributes say, and files carry much besides:
notes of training tools, defaults of generation. So an attribute is refused by what it is known to
change, and else ignored and named.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cat_jax.models.huggingface.rope import rope_problem

# fmt: off
READ_ATTRIBUTES = {
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters", "rms_norm_eps",
    "tie_word_embeddings", "hidden_act", "layer_types", "max_position_embeddings",
}
USUAL_ATTRIBUTES = {
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "eos_token_id", "id2label", "initializer_range", "is_encoder_decoder", "label2id",
    "max_window_layers", "output_attentions", "output_hidden_states", "pad_token_id",
    "pretraining_tp", "problem_type", "return_dict", "transformers_version", "use_cache",
}
# fmt: on
"""In most files and never part of the forward pass: not worth a word."""
CHANGES_MATHS = re.compile(
    "rope|rotary|alibi|position_embedding|softcap|window|sink|attention_chunk|bias|multiplier|scal"
    "|clip|quant|expert|moe|router|norm(?!.*eps)|residual|cross_attention|pruned_heads|logit"
)
"""Names of position encodings, attention patterns, biases, factors, norms and numeric formats."""
FACTOR = re.compile("multiplier|scal|factor")


def refused_attributes(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a configuration asks for and ``CausalLM`` does not compute, as ``name = value``.

    None, False, 0 and empty values switch a feature off, and so does a factor of 1.
    """
    if attributes["hidden_act"] != "silu":
        yield f"hidden_act = {attributes['hidden_act']!r}"
    if set(attributes.get("layer_types") or ()) - {"full_attention"}:
        yield f"layer_types = {attributes['layer_types']!r}"
    rope = rope_problem(attributes["rope_parameters"])
    if rope is not None:
        yield rope
    for name in _unread(attributes):
        is_one = bool(FACTOR.search(name)) and attributes[name] == 1
        if CHANGES_MATHS.search(name) and not is_one:
            yield f"{name} = {attributes[name]!r}"


def ignored_attributes(attributes: Mapping[str, Any]) -> list[str]:
    """Return the names of unusual attributes that do not change the maths."""
    return [name for name in _unread(attributes) if not CHANGES_MATHS.search(name)]


def _unread(attributes: Mapping[str, Any]) -> list[str]:
    names = attributes.keys() - READ_ATTRIBUTES - USUAL_ATTRIBUTES
    return sorted(name for name in names if attributes[name])
