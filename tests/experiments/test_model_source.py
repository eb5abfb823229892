"""A folder's tokenizer must be there and belong to its model."""

import shutil

import pytest
from experiments.model_source import load_tokenizer, make_model, resolve_attention

from cat_jax.config import Pretrained, Scratch
from cat_jax.errors import InputError

TEXTS = ["Weight: 3, Smoking: 7 Answer: High Risk"]


def test_a_folder_without_tokenizer_is_refused(shared, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(shared / "models/stories260K" / name, tmp_path)
    with pytest.raises(InputError, match=r"holds no tokenizer .* add its tokenizer.json"):
        make_model(Pretrained(name=str(tmp_path)), [], seed=0)


def test_a_tokenizer_of_another_model_is_refused(shared):
    with pytest.raises(InputError, match="has 151646 tokens, but the model knows 512"):
        load_tokenizer(str(shared / "tokenizers/qwen2.5"), vocab_size=512)


def test_a_pretrained_model_comes_with_its_tokenizer(shared):
    folder = str(shared / "models/stories260K")
    tokenizer, model, params = make_model(Pretrained(name=folder, dtype="float32"), [], seed=0)
    assert len(tokenizer) == model.config.vocab_size == 512
    assert params["embed"]["embedding"].shape == (512, 64)


def test_a_model_from_scratch_speaks_its_training_text():
    tokenizer, model, params = make_model(Scratch(width=8, num_heads=2, num_kv_heads=1), TEXTS, 3)
    assert tokenizer.decode(tokenizer(TEXTS[0]).input_ids) == TEXTS[0]
    assert params["embed"]["embedding"].shape == (len(tokenizer), 8)
    assert model.config.head_dim == 4


def test_attention_is_chosen_by_the_length_of_rows():
    short, long = (resolve_attention(Scratch(), length) for length in (20, 4096))
    assert short.implementation == "xla"
    assert "20 positions" in short.reason
    assert long.implementation == "xla_chunked"
    named = resolve_attention(Scratch(attention="xla"), 4096)
    assert named == ("xla", "the configuration names it")


def test_attention_that_cannot_run_here_is_refused():
    with pytest.raises(
        InputError, match="mosaic_tpu, but mosaic_tpu needs a TPU, and this machine"
    ):
        resolve_attention(Scratch(attention="mosaic_tpu"), 20)
