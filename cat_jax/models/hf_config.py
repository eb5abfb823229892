"""Translates Hugging Face configurations of Llama and Qwen2, refusing what we do not compute.

An attribute must be read, be known to leave the maths alone, or be switched off.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# fmt: off
READ_ATTRIBUTES = {
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters", "rms_norm_eps",
    "tie_word_embeddings", "hidden_act", "layer_types",
}
NEUTRAL_ATTRIBUTES = {
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "eos_token_id", "id2label", "initializer_range", "is_encoder_decoder", "label2id",
    "max_position_embeddings", "max_window_layers", "output_attentions", "output_hidden_states",
    "pad_token_id", "pretraining_tp", "problem_type", "return_dict", "transformers_version",
    "use_cache",
}
# fmt: on
"""Bookkeeping, and defaults of training and generation: never part of the forward pass."""


def read_config(folder: Path) -> "PretrainedConfig":
    """Read ``config.json`` of a Hugging Face folder; never runs code that comes with it.

    Raises:
        InputError: no such file, or not a configuration that transformers knows.
    """
    # Imported here because it takes seconds (it imports torch where that is installed), and who
    # trains from scratch never needs it.
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise InputError(f"{folder}/config.json: {first_sentence(error)}") from error


def first_sentence(error: Exception) -> str:
    """Give what went wrong on one line, without the advice of other libraries that follows it."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


def config_from_hf(hf_config: "PretrainedConfig") -> ModelConfig:
    """Translate a transformers configuration.

    Raises:
        InputError: a family other than Llama and Qwen2, or attributes that change the maths in a
            way ``CausalLM`` does not follow.
    """
    # to_dict also holds what transformers does not know, in the spelling of transformers 5.
    attributes = hf_config.to_dict()
    where, family = attributes["_name_or_path"] or "the configuration", attributes["model_type"]
    if family not in ("llama", "qwen2"):
        raise InputError(f"{where} has model_type {family!r}: choose a 'llama' or 'qwen2' model")
    refused = dict(_refused_attributes(attributes))
    if refused:
        listed = ", ".join(f"{name} = {value!r}" for name, value in refused.items())
        raise InputError(f"{where} asks for what this model does not compute: {listed}")
    heads = attributes["num_attention_heads"]
    return ModelConfig(
        vocab_size=attributes["vocab_size"],
        width=attributes["hidden_size"],
        mlp_width=attributes["intermediate_size"],
        num_layers=attributes["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=attributes["num_key_value_heads"],
        head_dim=attributes.get("head_dim") or attributes["hidden_size"] // heads,
        rope_theta=float(attributes["rope_parameters"]["rope_theta"]),
        norm_eps=attributes["rms_norm_eps"],
        qkv_bias=family == "qwen2",
        tie_embeddings=attributes["tie_word_embeddings"],
    )


def _refused_attributes(attributes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if attributes["hidden_act"] != "silu":
        yield "hidden_act", attributes["hidden_act"]
    if set(attributes.get("layer_types", ())) - {"full_attention"}:
        yield "layer_types", attributes["layer_types"]
    rope = attributes["rope_parameters"]
    scaled = rope["rope_type"] != "default" or rope.keys() != {"rope_type", "rope_theta"}
    if scaled or not isinstance(rope["rope_theta"], int | float):
        yield "rope_parameters", rope
    for name in sorted(attributes.keys() - READ_ATTRIBUTES - NEUTRAL_ATTRIBUTES):
        if attributes[name]:  # None, False, 0 and empty are how a feature is switched off
            yield name, attributes[name]
