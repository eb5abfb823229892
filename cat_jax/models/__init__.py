"""Llama, Mistral, Qwen2 and Qwen3 in Flax, and the causal mass of their attention maps."""

from cat_jax.config import LoraConfig
from cat_jax.models.attention import KEYS_VALUES, KVCache
from cat_jax.models.config import ModelConfig
from cat_jax.models.edits import (
    ACTIVATIONS,
    ATTENTION_EDITS,
    PATCHES,
    Activations,
    Patch,
    activation_patches,
    attention_edits,
    read_activations,
)
from cat_jax.models.huggingface.config import config_from_hf, config_to_hf
from cat_jax.models.huggingface.export import save_pretrained
from cat_jax.models.huggingface.orbax import convert_weights
from cat_jax.models.huggingface.peft import load_adapter, save_adapter
from cat_jax.models.huggingface.weights import load_pretrained
from cat_jax.models.language_model import LanguageModel, load_language_model
from cat_jax.models.lora import attach_lora, init_lora, merge_lora
from cat_jax.models.partitioning import param_shardings
from cat_jax.models.quantization import Int8Kernel, dequantize_params, quantize_params
from cat_jax.models.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from cat_jax.models.transformer import Aux, Cache, CausalLM, init_params

__all__ = [
    "ACTIVATIONS",
    "ATTENTION_EDITS",
    "KEYS_VALUES",
    "PATCHES",
    "Activations",
    "Aux",
    "Cache",
    "CausalLM",
    "Int8Kernel",
    "KVCache",
    "LanguageModel",
    "LinearScaling",
    "Llama3Scaling",
    "LoraConfig",
    "ModelConfig",
    "Patch",
    "RopeScaling",
    "YarnScaling",
    "activation_patches",
    "attach_lora",
    "attention_edits",
    "config_from_hf",
    "config_to_hf",
    "convert_weights",
    "dequantize_params",
    "init_lora",
    "init_params",
    "load_adapter",
    "load_language_model",
    "load_pretrained",
    "merge_lora",
    "param_shardings",
    "quantize_params",
    "read_activations",
    "save_adapter",
    "save_pretrained",
]
