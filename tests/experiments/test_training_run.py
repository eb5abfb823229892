"""What is refused before a run starts, of settings that only several devices could break."""

from types import SimpleNamespace

import pytest
from experiments.training_run import check_settings
from jax.sharding import AbstractMesh

from cat_jax.config import Finetune, OwnData, Scratch
from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import MESH_AXES


def test_heads_divide_among_the_devices_of_tensor_and_context():
    model = CausalLM(ModelConfig(16, 24, 32, 2, 12, 4, 2))
    tokenizer = SimpleNamespace(model_max_length=10_000)
    config = Finetune("heads", OwnData(train="rows.jsonl"), Scratch())
    check_settings(config, tokenizer, model, AbstractMesh((2, 1, 2, 3), MESH_AXES))
    with pytest.raises(InputError, match=r"tensor x train\.mesh\.context is 8, .* the 12 heads"):
        check_settings(config, tokenizer, model, AbstractMesh((1, 1, 2, 4), MESH_AXES))
