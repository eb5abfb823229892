"""Translation of Hugging Face configurations both ways; what is not computed is refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.attributes import ignored_attributes, refused_attributes
from cat_jax.models.huggingface.rope import max_positions_to_hf, rope_from_hf, rope_to_hf

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The model types we compute, and the classes that serve them in transformers."""
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
KEPT_ATTRIBUTES = (*SPECIAL_TOKENS, "initializer_range", "max_position_embeddings")
"""An exported model has those of the one it came from: others go by them."""


def read_config(folder: Path) -> "PretrainedConfig":
    """Read ``config.json`` of a Hugging Face folder; never runs code that comes with it.

    Raises:
        InputError: No such file, or not a configuration that transformers knows.
    """
    # Imported here because it takes seconds (it imports torch where that is installed), and who
    # trains from scratch never needs it.
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ArithmeticError,
        RecursionError,
        StrictDataclassError,
    ) as error:
        raise InputError(f"{folder}/config.json: {first_sentence(error)}") from error
    _refuse_two_bases(folder / "config.json")
    return config


def _refuse_two_bases(path: Path) -> None:
    """Raise InputError where the dialects of transformers 4 and 5 give different rope_theta."""
    attributes = json.loads(path.read_text("utf-8"))
    newer = attributes.get("rope_parameters") or {}
    pair = attributes.get("rope_theta"), newer.get("rope_theta")
    if None not in pair and pair[0] != pair[1]:
        raise InputError(
            f"{path} gives rope_theta = {pair[0]} and rope_parameters.rope_theta = {pair[1]}, and "
            "readers take either: make them equal"
        )


def first_sentence(error: Exception) -> str:
    """Return what went wrong on one line, without the advice of other libraries that follows it."""
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")


def config_from_hf(hf_config: "PretrainedConfig") -> ModelConfig:
    """Translate a transformers configuration.

    Raises:
        InputError: A family other than Llama, Mistral, Qwen2 and Qwen3, attributes that change
            the maths in a way ``CausalLM`` does not follow, or numbers that cannot be.
    """
    # to_dict also holds what transformers does not know, in the spelling of transformers 5.
    attributes = hf_config.to_dict()
    where, family = attributes["_name_or_path"] or "the configuration", attributes["model_type"]
    if family not in FAMILIES:
        raise InputError(
            f"{where} has model_type {family!r}: choose a model of {', '.join(FAMILIES)}"
        )
    refused = list(refused_attributes(attributes))
    if refused:
        raise InputError(f"{where} asks for what this model does not compute: {', '.join(refused)}")
    ignored = ignored_attributes(attributes)
    if ignored:
        logger.info("%s: ignored, as it does not change the model: %s", where, ", ".join(ignored))
    try:
        return _translate(attributes, family)
    except InputError as error:
        raise InputError(f"{where}/config.json: {error}") from error


def _translate(attributes: dict[str, Any], family: str) -> ModelConfig:
    heads, head_dim = attributes["num_attention_heads"], attributes.get("head_dim")
    theta, scaling, max_positions = rope_from_hf(
        attributes["rope_parameters"], attributes["max_position_embeddings"]
    )
    return ModelConfig(
        vocab_size=attributes["vocab_size"],
        width=attributes["hidden_size"],
        mlp_width=attributes["intermediate_size"],
        num_layers=attributes["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=attributes["num_key_value_heads"],
        head_dim=attributes["hidden_size"] // heads if head_dim is None else head_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        max_positions=max_positions,
        norm_eps=attributes["rms_norm_eps"],
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tie_embeddings=attributes["tie_word_embeddings"],
    )


def is_same_model(a: ModelConfig, b: ModelConfig) -> bool:
    """Tell whether two configurations differ at most in how they are computed."""
    how = {"attention": "xla", "scan": True, "remat": "none", "dtype": "float32"}
    return replace(a, **how) == replace(b, **how)


def config_to_hf(config: ModelConfig, like: "PretrainedConfig | None" = None) -> "PretrainedConfig":
    """Translate into a transformers configuration; ``config_from_hf`` gives ``config`` back.

    ``attention``, ``scan``, ``remat`` and ``dtype`` say how to compute, so they are left out.

    Args:
        config: What to translate.
        like: Where context length and special tokens come from; without it the context length is
            the configuration's, and there are no special tokens.

    Raises:
        InputError: transformers has no family that computes this.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    family = _family(config)
    kept = {name: getattr(like, name) for name in KEPT_ATTRIBUTES if hasattr(like, name)}
    # A family's own special tokens are ids of another vocabulary.
    own = dict.fromkeys(SPECIAL_TOKENS) | {"max_position_embeddings": max_positions_to_hf(config)}
    kept = own | kept
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
            rope_parameters=rope_to_hf(config),
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
