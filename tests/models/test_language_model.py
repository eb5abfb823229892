"""Loading a model with its tokenizer and the tokens that end an answer."""

import dataclasses
import shutil

import numpy as np
import pytest
from transformers import GenerationConfig

from cat_jax.errors import InputError
from cat_jax.models import load_language_model, save_pretrained
from cat_jax.testing import toy_model


@pytest.fixture
def stories(shared, tmp_path):
    return shutil.copytree(shared / "models/stories260K", tmp_path / "stories")


def test_every_listed_end_token_stops(stories):
    assert load_language_model(stories).stop_ids == (2,)
    GenerationConfig(eos_token_id=[7, 5]).save_pretrained(stories)
    model = load_language_model(stories)
    assert model.stop_ids == (2, 5, 7)
    model.tokenizer.eos_token = None
    assert model.stop_ids == (5, 7)
    (stories / "generation_config.json").unlink()
    assert load_language_model(stories).stop_ids == (2,)


def test_a_model_in_memory_ends_with_its_tokenizer():
    toy = toy_model()
    assert toy.stop_ids == (toy.tokenizer.eos_token_id,)
    assert dataclasses.replace(toy, end_ids=(3,)).stop_ids == (1, 3)


@pytest.mark.parametrize("family", [{}, {"qkv_bias": True}, {"qk_norm": True}])
@pytest.mark.parametrize(("param_dtype", "bound"), [("bfloat16", 0.02), ("int8", 0.05)])
def test_parameters_held_in_less_give_near_logits(family, param_dtype, bound, tmp_path):
    """Root mean square error in standard deviations; docs/decoding.md names the bounds."""
    made = toy_model(seed=2, width=32, mlp_width=56, head_dim=16, **family)
    folder = tmp_path / "model"
    save_pretrained(folder, made.model.config, made.params, made.tokenizer)
    tokens_BT = np.array(made.tokenizer(["Attention is", "not all of i"]).input_ids)

    def logits(**options):
        model = load_language_model(folder, **options)
        return np.asarray(model.model.apply({"params": model.params}, tokens_BT)[0])

    exact, near = logits(), logits(param_dtype=param_dtype)
    assert exact.dtype == near.dtype == np.float32
    error = np.sqrt(np.mean((near - exact) ** 2) / np.var(exact))
    assert bound / 100 < error < bound


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_language_model(tmp_path / "nothing")
