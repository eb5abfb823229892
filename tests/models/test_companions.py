"""The files beside exported weights, as transformers 4 and 5 and servers read them."""

import json
import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import FAMILIES, make
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from cat_jax.errors import InputError
from cat_jax.models import load_language_model, load_pretrained, save_pretrained
from cat_jax.testing import toy_model, toy_tokenizer


def read(folder, name):
    return json.loads((folder / name).read_text())


SCALING = {
    "llama3": {
        "rope_type": "llama3",
        "factor": 5.0,
        "low_freq_factor": 0.5,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 256,
    },
    "linear": {"rope_type": "linear", "factor": 2.5},
    "qwen2-yarn": {
        "rope_type": "yarn",
        "factor": 5.0,
        "original_max_position_embeddings": 256,
        "beta_fast": 24.0,
        "beta_slow": 0.5,
        "truncate": True,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_rotary_settings_stand_in_both_dialects(family, tmp_path):
    config, params = make(family)
    save_pretrained(tmp_path / "out", config, params)
    written = read(tmp_path / "out", "config.json")
    assert written["rope_theta"] == config.rope_theta == 300.0
    assert written["rope_parameters"]["rope_theta"] == 300.0
    scaling = {k: v for k, v in written["rope_parameters"].items() if k != "rope_theta"}
    if config.rope_scaling is None:
        assert (written["rope_scaling"], scaling) == (None, {"rope_type": "default"})
    else:
        assert written["rope_scaling"] == scaling
        assert scaling == SCALING[family]
    assert written["dtype"] == written["torch_dtype"] == "float32"


OLD_SPELLING = {
    "torch_dtype": "bfloat16",
    "rope_theta": 5e5,
    "rope_scaling": {
        "type": "llama3",
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "max_position_embeddings": 99,
    "eos_token_id": [3, 5],
    "tokenizer_class": "Odd",
    "auto_map": {"AutoModel": "evil.Model"},
}


@pytest.fixture
def source(tmp_path):
    """A folder as transformers 4 wrote it, in bfloat16, with several ends and sampling defaults."""
    toy, folder = toy_model(width=16), tmp_path / "source"
    save_pretrained(folder, toy.model.config, toy.params, toy.tokenizer, dtype="bfloat16")
    fields = read(folder, "config.json")
    del fields["rope_parameters"], fields["dtype"]
    (folder / "config.json").write_text(json.dumps(fields | OLD_SPELLING))
    generation = {"eos_token_id": [3, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_a_source_hands_on_its_settings(source, tmp_path):
    config, params = load_pretrained(source)
    assert (config.rope_theta, config.rope_scaling.factor) == (5e5, 8.0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    save_pretrained(tmp_path / "out", config, params, tokenizer, source=source, end_ids=[2, 5])
    written = read(tmp_path / "out", "config.json")
    for name, value in OLD_SPELLING.items():
        if name not in ("rope_scaling", "eos_token_id", "auto_map"):
            assert written[name] == value, name
    assert written["rope_scaling"].items() >= {"rope_type": "llama3", "factor": 8.0}.items()
    assert written["rope_parameters"]["rope_theta"] == 5e5
    assert "auto_map" not in written
    generation = read(tmp_path / "out", "generation_config.json")
    assert generation == read(source, "generation_config.json") | {"eos_token_id": [3, 5, 2]}
    assert written["eos_token_id"] == [3, 5, 2]
    assert load_pretrained(tmp_path / "out")[0] == config


def test_tokenizer_files_are_those_of_the_source(source, tmp_path):
    config, params = load_pretrained(source)
    original = (source / "tokenizer_config.json").read_text()
    (source / "tokenizer_config.json").write_text(original + "\n\n")  # any byte counts
    tokenizer = AutoTokenizer.from_pretrained(source)
    save_pretrained(tmp_path / "same", config, params, tokenizer, source=source)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "same" / name).read_bytes() == (source / name).read_bytes()
    tokenizer.chat_template += " "
    save_pretrained(tmp_path / "changed", config, params, tokenizer, source=source)
    assert AutoTokenizer.from_pretrained(tmp_path / "changed").chat_template[-1] == " "


def test_a_tokenizer_of_ours_is_written_for_old_readers(tmp_path):
    config, params = make("llama")
    tokenizer = toy_tokenizer()
    save_pretrained(tmp_path / "out", config, params, tokenizer)
    fields = read(tmp_path / "out", "tokenizer_config.json")
    assert fields["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only", "extra_special_tokens"} & fields.keys()
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.all_special_tokens == tokenizer.all_special_tokens
    assert again.chat_template == tokenizer.chat_template
    assert again("Smoking: 8").input_ids == tokenizer("Smoking: 8").input_ids


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_weights_leave_in_the_dtype_of_the_source(dtype, source, tmp_path):
    config, params = load_pretrained(source)
    params = jax.tree.map(lambda x: x + 1e-3, params)
    save_pretrained(tmp_path / "out", config, params, source=source, dtype=dtype)
    name = dtype or "bfloat16"
    assert read(tmp_path / "out", "config.json")["dtype"] == name
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {values.dtype.name for values in tensors.values()} == {name}
    expected = np.asarray(params["embed"]["embedding"].astype(name))
    np.testing.assert_array_equal(tensors["model.embed_tokens.weight"], expected)


def test_everybody_may_read_what_is_written(tmp_path):
    config, params = make("qwen3")
    (tmp_path / "other").write_text("")
    expected = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    save_pretrained(tmp_path / "out", config, params, toy_tokenizer(), shard_bytes=9_000)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {expected}


def test_numbers_that_are_not_finite_do_not_leave(tmp_path):
    config, params = make("llama")
    up = params["layers"]["mlp"]["up"]["kernel"]
    params["layers"]["mlp"]["up"]["kernel"] = up.at[1, 2, 3].set(jnp.nan)
    with pytest.raises(InputError, match=r"model.layers.1.mlp.up_proj.weight.* holds NaN"):
        save_pretrained(tmp_path / "out", config, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("listed", "ids"), [(4, (1, 4)), ([4, 6], (1, 4, 6)), (None, (1,))])
def test_one_end_or_a_list_or_none_in_every_file(listed, ids, source, tmp_path):
    toy = tmp_path / "toy"
    shutil.copytree(source, toy)
    fields = read(toy, "config.json")
    (toy / "config.json").write_text(json.dumps(fields | {"eos_token_id": listed}))
    (toy / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    assert load_language_model(toy).stop_ids == ids
    (toy / "generation_config.json").unlink()  # then the configuration's count
    assert load_language_model(toy).stop_ids == ids


def test_a_damaged_generation_config_is_named(source):
    (source / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"generation_config.json is not valid JSON"):
        load_language_model(source)
