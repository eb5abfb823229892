"""Configurations of well-known public models by name, so that planning downloads nothing.

Source: each model's ``config.json`` on the Hugging Face hub.
"""

from pathlib import Path

from cat_jax.errors import InputError
from cat_jax.models import ModelConfig, config_from_hf
from cat_jax.models.huggingface.config import read_config

LLAMA_31 = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "tie_word_embeddings": False,
    "use_cache": True,
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0",
}
LLAMA_31_70B = LLAMA_31 | {
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
QWEN25 = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "max_window_layers": 28,
    "sliding_window": 131_072,
    "use_sliding_window": False,
    "use_mrope": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
}
QWEN25_7B = QWEN25 | {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
QWEN25_72B = QWEN25_7B | {
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
QWEN3_8B = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 12_288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40_960,
    "max_window_layers": 36,
    "sliding_window": None,
    "use_sliding_window": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
}
QWEN3_32B = QWEN3_8B | {
    "hidden_size": 5120,
    "intermediate_size": 25_600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "max_window_layers": 64,
}
LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
TINY_LLAMA = LLAMA_2_7B | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
LLAMA_32_1B = LLAMA_31 | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "rope_scaling": LLAMA_31["rope_scaling"] | {"factor": 32.0},
    "tie_word_embeddings": True,
}
LLAMA_3_8B = LLAMA_31 | {"rope_scaling": None, "max_position_embeddings": 8192}
PUBLIC_MODELS = {
    "Llama-2-7b": LLAMA_2_7B,
    "TinyLlama-1.1B": TINY_LLAMA,
    "Meta-Llama-3-8B": LLAMA_3_8B,
    "Llama-3.1-8B": LLAMA_31,
    "Llama-3.1-70B": LLAMA_31_70B,
    "Llama-3.2-1B": LLAMA_32_1B,
    "Qwen2.5-1.5B": QWEN25,
    "Qwen2.5-7B": QWEN25_7B,
    "Qwen2.5-72B": QWEN25_72B,
    "Qwen3-8B": QWEN3_8B,
    "Qwen3-32B": QWEN3_32B,
}


def find_model(name: str) -> ModelConfig:
    """Return the configuration of one of ``PUBLIC_MODELS`` or of a local Hugging Face folder.

    Raises:
        InputError: There is no such model, or ``CausalLM`` does not support it.
    """
    from transformers import AutoConfig  # slow to import

    if name in PUBLIC_MODELS:
        return config_from_hf(AutoConfig.for_model(**PUBLIC_MODELS[name]))
    if Path(name).is_dir():
        return config_from_hf(read_config(Path(name)))
    raise InputError(
        f"no model named {name!r}: give a folder with a config.json, or one of "
        f"{', '.join(PUBLIC_MODELS)}"
    )
