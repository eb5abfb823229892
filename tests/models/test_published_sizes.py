"""Public configurations give the published parameter counts, without any memory."""

import jax
import jax.numpy as jnp
import pytest
from transformers import AutoConfig

from cat_jax.models import CausalLM, Llama3Scaling, config_from_hf, config_to_hf
from experiments.planning.public_models import PUBLIC_MODELS

PUBLISHED = {
    "Llama-2-7b": 6_738_415_616,
    "TinyLlama-1.1B": 1_100_048_384,
    "Meta-Llama-3-8B": 8_030_261_248,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.2-1B": 1_235_814_400,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-32B": 32_762_123_264,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count(name):
    config = config_from_hf(AutoConfig.for_model(**PUBLIC_MODELS[name]))
    tokens_BT = jnp.zeros((1, 1), jnp.int32)
    params = jax.eval_shape(CausalLM(config).init, jax.random.key(0), tokens_BT)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_there_and_back(name):
    original = AutoConfig.for_model(**PUBLIC_MODELS[name])
    config = config_from_hf(original)
    assert config_from_hf(config_to_hf(config)) == config
    # Nothing but bookkeeping differs from the public file.
    theirs, ours = original.to_dict(), config_to_hf(config, like=original).to_dict()
    for attributes in (theirs, ours):
        for name in ("architectures", "dtype", "transformers_version", "max_window_layers"):
            attributes.pop(name, None)
    assert {n: v for n, v in ours.items() if v} == {n: v for n, v in theirs.items() if v}


def test_scaling_is_read():
    config = config_from_hf(AutoConfig.for_model(**PUBLIC_MODELS["Llama-3.2-1B"]))
    assert config.rope_scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)
    assert config.rope_theta == 500_000.0
    assert config_from_hf(AutoConfig.for_model(**PUBLIC_MODELS["Qwen3-8B"])).rope_scaling is None
