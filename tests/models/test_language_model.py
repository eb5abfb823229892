"""Loading a model with its tokenizer and the tokens that end an answer."""

import dataclasses
import shutil

import pytest
from transformers import GenerationConfig

from cat_jax.errors import InputError
from cat_jax.models import load_language_model
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


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_language_model(tmp_path / "nothing")
