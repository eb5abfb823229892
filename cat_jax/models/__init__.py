"""Llama and Qwen2 in Flax, with the causal mass of every attention map beside the logits."""

from cat_jax.models.attention import KVCache
from cat_jax.models.config import ModelConfig
from cat_jax.models.hf_config import config_from_hf
from cat_jax.models.hf_weights import load_pretrained
from cat_jax.models.transformer import Aux, CausalLM, empty_cache

__all__ = [
    "Aux",
    "CausalLM",
    "KVCache",
    "ModelConfig",
    "config_from_hf",
    "empty_cache",
    "load_pretrained",
]
