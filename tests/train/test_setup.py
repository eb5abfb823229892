"""What a run starts from: tokenizer, model and attention fit each other and the settings."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from cat_jax.config import Guidance, LoraConfig, Pretrained, PretrainedLora, Scratch, Training
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig, dequantize_params, quantize_params
from cat_jax.models.tokenizer import load_tokenizer
from cat_jax.sharding import MESH_AXES
from cat_jax.testing import toy_model
from cat_jax.train.setup import (
    check_settings,
    make_tokenizer,
    resolve_attention,
    resolve_start,
    setup_training,
)

RECORD = Record("Weight: 3, Smoking: 7 Answer: ", "High Risk")
TRAIN = Training(batch_size=3, max_length=20)


def start(source, **options):
    return setup_training(source, make_tokenizer(source, [RECORD]), TRAIN, **options)


def test_a_folder_without_tokenizer_is_refused(shared, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(shared / "models/stories260K" / name, tmp_path)
    with pytest.raises(InputError, match=r"holds no tokenizer .* add its tokenizer.json"):
        make_tokenizer(Pretrained(str(tmp_path)), [])


def test_a_tokenizer_of_another_model_is_refused(shared):
    with pytest.raises(InputError, match="has 151646 tokens, but the model knows 512"):
        load_tokenizer(str(shared / "tokenizers/qwen2.5"), vocab_size=512)


def test_a_pretrained_model_comes_with_its_tokenizer(shared):
    setup = start(Pretrained(str(shared / "models/stories260K"), dtype="float32"))
    assert len(setup.tokenizer) == setup.model.config.vocab_size == 512
    assert setup.params["embed"]["embedding"].shape == (512, 64)
    assert setup.base is None


def test_frozen_parameters_have_the_dtype_of_the_arithmetic(shared):
    source = PretrainedLora(str(shared / "models/stories260K"), lora=LoraConfig(rank=3))
    setup = start(source)
    assert {leaf.dtype for leaf in jax.tree.leaves(setup.base.params)} == {np.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(setup.params)} == {np.dtype("float32")}


@pytest.mark.parametrize("frozen_dtype", ["float32", "bfloat16", "int8"])
def test_frozen_parameters_have_the_dtype_that_is_asked_for(shared, frozen_dtype):
    folder, lora = str(shared / "models/stories260K"), LoraConfig(rank=3)
    setup = start(PretrainedLora(folder, lora=lora, frozen_dtype=frozen_dtype))
    expected = {frozen_dtype} if frozen_dtype != "int8" else {"bfloat16", "int8", "float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(setup.base.params)} == expected
    assert setup.base.params["layers"]["mlp"]["up"]["kernel"].shape == (5, 64, 172)
    assert (setup.base.params["embed"]["embedding"].dtype == "float32") == (
        frozen_dtype == "float32"
    )


def test_a_model_in_int8_is_not_trained_whole():
    toy = toy_model()
    frozen = dataclasses.replace(toy, params=quantize_params(toy.params))
    with pytest.raises(InputError, match=r"int8, which cannot be trained: give lora"):
        start(frozen)
    assert start(frozen, lora=LoraConfig(rank=3)).base.params["embed"] == toy.params["embed"]
    again = dataclasses.replace(frozen, params=dequantize_params(frozen.params))
    assert start(again).base is None


def test_a_model_from_scratch_speaks_its_training_text():
    setup = start(Scratch(width=8, num_heads=2, num_kv_heads=1), seed=3)
    assert setup.tokenizer.decode(setup.tokenizer(RECORD.text).input_ids) == RECORD.text
    assert setup.params["embed"]["embedding"].shape == (len(setup.tokenizer), 8)
    assert setup.model.config.head_dim == 4


def test_a_model_from_scratch_needs_records():
    with pytest.raises(InputError, match="makes its tokenizer from records; give some"):
        make_tokenizer(Scratch(), [])


def test_parameters_in_memory_are_copied():
    toy = toy_model()
    setup = start(toy)
    assert setup.tokenizer is toy.tokenizer
    assert setup.params["embed"]["embedding"] is not toy.params["embed"]["embedding"]
    jax.tree.map(np.testing.assert_array_equal, setup.params, toy.params)


def test_a_name_is_a_pretrained_model_and_adapters_go_on_it(tmp_path):
    assert resolve_start(tmp_path) == Pretrained(str(tmp_path))
    named = Pretrained("a", remat="none", dtype="float32")
    lora = LoraConfig(rank=3)
    assert resolve_start(named, lora) == PretrainedLora("a", "auto", "none", "float32", lora)
    assert resolve_start("a", lora) == PretrainedLora("a", lora=lora)
    frozen = PretrainedLora("a", frozen_dtype="int8")
    assert resolve_start(frozen, lora) == PretrainedLora("a", lora=lora, frozen_dtype="int8")
    with pytest.raises(InputError, match="adapters need a pretrained model; leave out lora"):
        resolve_start(Scratch(), lora)


def test_attention_is_selected_by_the_length_of_sequences():
    short, long = (resolve_attention(Scratch(), Training(max_length=n)) for n in (20, 4096))
    assert short.implementation == "xla"
    assert "20 positions" in short.reason
    assert long.implementation == "xla_chunked"
    named = resolve_attention(Scratch(attention="xla"), Training(max_length=4096))
    assert named == ("xla", "the configuration names it")
    own = resolve_attention(toy_model(attention="xla_chunked"), Training(max_length=20))
    assert own == ("xla_chunked", "the model's own")


def test_attention_that_cannot_run_here_is_refused():
    with pytest.raises(
        InputError, match="mosaic_tpu, but mosaic_tpu needs a TPU, and this machine"
    ):
        resolve_attention(Scratch(attention="mosaic_tpu"), Training(max_length=20))


def check(train=TRAIN, guidance=None, devices=(1, 1, 1, 1), limit=10_000):
    model = CausalLM(ModelConfig(16, 24, 32, 2, 12, 4, 2, max_positions=limit))
    check_settings(train, guidance, model, AbstractMesh(devices, MESH_AXES))


def test_heads_divide_among_the_devices_of_tensor_and_context():
    check(devices=(2, 1, 2, 3))
    with pytest.raises(InputError, match=r"tensor x train\.mesh\.context is 8, .* the 12 heads"):
        check(devices=(1, 1, 2, 4))


def test_sequences_no_longer_than_the_model_reads():
    check(limit=20)
    with pytest.raises(InputError, match=r"max_length is 20, but the model reads at most 19"):
        check(limit=19)


def test_guidance_of_layers_that_the_model_has():
    check(guidance=Guidance(layers=(0, 1)))
    with pytest.raises(InputError, match="names layer 2, but the model has layers 0 to 1"):
        check(guidance=Guidance(layers=(1, 2)))
