"""Writing Hugging Face folders: what torch and ``load_pretrained`` read is what was there."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import CONFIG, FAMILIES, TOKENS_BT, make
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from cat_jax.errors import InputError
from cat_jax.models import (
    CausalLM,
    config_from_hf,
    config_to_hf,
    load_pretrained,
    save_pretrained,
)
from cat_jax.models.huggingface.config import read_config


@pytest.mark.parametrize("family", FAMILIES)
def test_config_there_and_back(family):
    config = dataclasses.replace(CONFIG, **FAMILIES[family])
    assert config_from_hf(config_to_hf(config)) == config
    run_otherwise = dataclasses.replace(
        config, attention="xla_chunked", scan=False, remat="full", dtype="bfloat16"
    )
    assert config_from_hf(config_to_hf(run_otherwise)) == config


def test_config_keeps_what_others_go_by():
    like = AutoConfig.for_model("qwen2", max_position_embeddings=777, eos_token_id=[3, 5])
    hf_config = config_to_hf(CONFIG, like=like)
    assert (hf_config.model_type, hf_config.max_position_embeddings) == ("llama", 777)
    assert hf_config.eos_token_id == [3, 5]
    assert hf_config.architectures == ["LlamaForCausalLM"]


def test_config_that_no_family_has():
    with pytest.raises(InputError, match="both qkv_bias and qk_norm"):
        config_to_hf(dataclasses.replace(CONFIG, qkv_bias=True, qk_norm=True))
    with pytest.raises(InputError, match="refuses this llama model"):
        config_to_hf(dataclasses.replace(CONFIG, width=31))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(family, dtype, tmp_path):
    config, params = make(family, dtype)
    save_pretrained(tmp_path / "out", config, params, shard_bytes=9_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    again, read = load_pretrained(tmp_path / "out", param_dtype="stored")
    assert again == config
    assert jax.tree.structure(read) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_reads_it(family, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, params = make(family)
    save_pretrained(tmp_path / "out", config, params)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT)).logits.numpy()
    logits_BTV, _ = CausalLM(config).apply({"params": params}, TOKENS_BT)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(logits_BTV, expected, rtol=0, atol=1e-5)
    tokens = torch.tensor(TOKENS_BT)
    steps = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=4
    )
    ids = TOKENS_BT
    for _ in range(4):
        logits_BTV, _ = CausalLM(config).apply({"params": params}, ids)
        ids = np.concatenate([ids, logits_BTV[:, -1:].argmax(-1)], axis=1)
    assert steps.tolist() == ids.tolist()


def test_files_of_shards(tmp_path):
    config, params = make("llama")
    save_pretrained(tmp_path / "out", config, params, shard_bytes=9_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    assert set(index["weight_map"].values()) == set(files)
    sizes = [(tmp_path / "out" / name).stat().st_size for name in files]
    assert max(sizes) < 9_000 + 2_000  # headers


def test_dtype_is_written(tmp_path):
    config, params = make("llama", "bfloat16")
    save_pretrained(tmp_path / "low", config, params)
    assert json.loads((tmp_path / "low" / "config.json").read_text())["dtype"] == "bfloat16"
    params["final_norm"]["scale"] = params["final_norm"]["scale"].astype(jnp.float32)
    save_pretrained(tmp_path / "mixed", config, params)
    assert json.loads((tmp_path / "mixed" / "config.json").read_text())["dtype"] == "float32"


def test_the_tokenizer_comes_along(tmp_path):
    config, params = make("llama")
    words = models.WordLevel({"yes": 0, "no": 1}, unk_token="no")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
    save_pretrained(tmp_path / "out", config, params, tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("yes").input_ids == [0]


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_the_tokenizers(family, tmp_path):
    """The defaults of a family, 1 and 2 for Llama, are ids of another vocabulary."""
    config, params = make(family)
    words = models.WordLevel({"no": 0, "</s>": 1, "<pad>": 2, "<s>": 3}, unk_token="no")
    special = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), **special)
    save_pretrained(tmp_path / "out", config, params, tokenizer)
    read = read_config(tmp_path / "out")
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (3, 1, 2)
    save_pretrained(tmp_path / "bare", config, params)
    read = read_config(tmp_path / "bare")
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (None, None, None)


def test_parameters_of_another_model(tmp_path):
    config, params = make("qwen2")
    other = dataclasses.replace(config, qkv_bias=False, qk_norm=True, mlp_width=28)
    with pytest.raises(InputError) as caught:
        save_pretrained(tmp_path / "out", other, params)
    for part in (
        "layers/attention/query_norm/scale is missing",
        "layers/attention/key/bias is unexpected",
        "layers/mlp/up/kernel has shape (3, 30, 29), not (3, 30, 28)",
    ):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_existing_folders_are_left_alone(tmp_path):
    config, params = make("llama")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="already exists"):
        save_pretrained(tmp_path / "out", config, params)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        save_pretrained(tmp_path / "file" / "out", config, params)
    assert not list((tmp_path / "out").iterdir())


def test_dtype_of_parameters(tmp_path):
    config, params = make("llama")
    save_pretrained(tmp_path / "out", config, params)
    _, read = load_pretrained(tmp_path / "out", param_dtype="bfloat16")
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(read["layers"]["mlp"]["up"]["kernel"], kernel.astype("bfloat16"))
    params["layers"]["mlp"]["up"]["kernel"] = kernel.astype("float16")
    save_pretrained(tmp_path / "mixed", config, params)
    _, read = load_pretrained(tmp_path / "mixed", param_dtype="stored")
    assert read["layers"]["mlp"]["up"]["kernel"].dtype == jnp.float16
    assert read["layers"]["mlp"]["down"]["kernel"].dtype == jnp.float32
