"""Small random models of every family, every axis of another length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.models import CausalLM, LinearScaling, Llama3Scaling, ModelConfig, YarnScaling

CONFIG = ModelConfig(37, 30, 29, 3, 6, 3, 8, rope_theta=300.0, norm_eps=0.02)
TOKENS_BT = np.random.default_rng(0).integers(0, 37, (2, 9))
FAMILIES = {
    "llama": {},
    "llama3": {"rope_scaling": Llama3Scaling(5.0, 0.5, 8.0, 256)},
    "linear": {"rope_scaling": LinearScaling(2.5), "max_positions": 5000},
    "qwen2": {"qkv_bias": True},
    "qwen2-yarn": {
        "qkv_bias": True,
        "rope_scaling": YarnScaling(5.0, 256, None, 24.0, 0.5),
        "max_positions": 1280,
    },
    "qwen2-tied": {"qkv_bias": True, "tie_embeddings": True},
    "qwen3": {"qk_norm": True, "width": 31},
    "qwen3-tied": {"qk_norm": True, "tie_embeddings": True},
}


def make(family, dtype="float32"):
    config = dataclasses.replace(CONFIG, **FAMILIES[family])
    shapes = jax.eval_shape(CausalLM(config).init, jax.random.key(0), TOKENS_BT)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(1)
    values = [jnp.asarray(0.3 * rng.normal(size=leaf.shape), dtype) for leaf in leaves]
    return config, tree.unflatten(values)
