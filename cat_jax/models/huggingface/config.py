"""Translates Hugging Face configurations both ways, refusing what we do not compute.

An attribute must be read, be known to leave the maths alone, or be switched off.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig, RopeScaling

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The model types we compute, and the classes that serve them in transformers."""
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
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
KEPT_ATTRIBUTES = (*SPECIAL_TOKENS, "initializer_range", "max_position_embeddings")
"""Neutral, but others go by them: an exported model has those of the one it came from."""
ROPE_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_positions",
}
"""The names of Hugging Face and the fields of ``RopeScaling``."""


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
        InputError: a family other than Llama, Qwen2 and Qwen3, or attributes that change the maths
            in a way ``CausalLM`` does not follow.
    """
    # to_dict also holds what transformers does not know, in the spelling of transformers 5.
    attributes = hf_config.to_dict()
    where, family = attributes["_name_or_path"] or "the configuration", attributes["model_type"]
    if family not in FAMILIES:
        raise InputError(
            f"{where} has model_type {family!r}: choose a model of {', '.join(FAMILIES)}"
        )
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
        rope_scaling=_rope_scaling(attributes["rope_parameters"]),
        norm_eps=attributes["rms_norm_eps"],
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tie_embeddings=attributes["tie_word_embeddings"],
    )


def _rope_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    if rope["rope_type"] == "default":
        return None
    return RopeScaling(**{ours: rope[theirs] for theirs, ours in ROPE_SCALING.items()})


def _refused_attributes(attributes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if attributes["hidden_act"] != "silu":
        yield "hidden_act", attributes["hidden_act"]
    if set(attributes.get("layer_types", ())) - {"full_attention"}:
        yield "layer_types", attributes["layer_types"]
    if not _is_known_rope(attributes["rope_parameters"]):
        yield "rope_parameters", attributes["rope_parameters"]
    for name in sorted(attributes.keys() - READ_ATTRIBUTES - NEUTRAL_ATTRIBUTES):
        if attributes[name]:  # None, False, 0 and empty are how a feature is switched off
            yield name, attributes[name]


def _is_known_rope(rope: dict[str, Any]) -> bool:
    numbers = {"default": {"rope_theta"}, "llama3": {"rope_theta", *ROPE_SCALING}}
    expected = numbers.get(rope["rope_type"])
    # "type" is an older name of "rope_type", and may stand beside it.
    return (
        expected is not None
        and rope.get("type", rope["rope_type"]) == rope["rope_type"]
        and rope.keys() - {"type"} == expected | {"rope_type"}
        and all(isinstance(rope[name], int | float) for name in expected)
    )


def config_to_hf(config: ModelConfig, like: "PretrainedConfig | None" = None) -> "PretrainedConfig":
    """Translate into a transformers configuration; ``config_from_hf`` gives ``config`` back.

    ``attention``, ``scan``, ``remat`` and ``dtype`` say how to compute, so they are left out.

    Args:
        config: what to translate.
        like: where the context length and the special tokens come from. Without it the context
            length is the family's default, and there are no special tokens.

    Raises:
        InputError: transformers has no family that computes this.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    family = _family(config)
    kept = {name: getattr(like, name) for name in KEPT_ATTRIBUTES if hasattr(like, name)}
    kept = dict.fromkeys(SPECIAL_TOKENS) | kept  # a family's own are ids of another vocabulary
    # Qwen2 has no such attribute in its files; transformers reads it where it must differ.
    is_derived = family == "qwen2" and config.head_dim == config.width // config.num_heads
    head_size = {} if is_derived else {"head_dim": config.head_dim}
    try:
        return AutoConfig.for_model(
            family,
            **kept,
            architectures=[FAMILIES[family]],
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            **head_size,
            rope_parameters=_rope_parameters(config),
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=config.tie_embeddings,
        )
    except (ValueError, StrictDataclassError) as error:
        raise InputError(
            f"transformers refuses this {family} model: {first_sentence(error)}"
        ) from error


def _family(config: ModelConfig) -> str:
    if config.qkv_bias and config.qk_norm:
        raise InputError(
            "no Hugging Face family has both qkv_bias and qk_norm: a model with both stays here"
        )
    return "qwen2" if config.qkv_bias else "qwen3" if config.qk_norm else "llama"


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope["rope_type"] = "llama3"
        rope |= {hf: getattr(config.rope_scaling, ours) for hf, ours in ROPE_SCALING.items()}
    return rope
