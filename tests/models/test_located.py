"""Adapters, their base models and runs, by the name of a folder."""

import json

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from cat_jax.config import LoraConfig
from cat_jax.errors import InputError
from cat_jax.models import (
    attach_lora,
    init_lora,
    load_adapter,
    load_language_model,
    save_adapter,
    save_pretrained,
)
from cat_jax.testing import toy_model

LORA = LoraConfig(rank=3, alpha=7.0, dropout=0.0, targets=("q_proj", "up_proj"))
TOKENS_BT = np.random.default_rng(0).integers(2, 60, (2, 7))


@pytest.fixture
def toy():
    return toy_model()


@pytest.fixture
def base(toy, tmp_path):
    save_pretrained(tmp_path / "base", toy.model.config, toy.params, toy.tokenizer)
    return tmp_path / "base"


@pytest.fixture
def adapters(toy):
    fresh = init_lora(jax.random.key(0), toy.model.config, LORA)
    return jax.tree.map(lambda x: x + 0.1, fresh)


@pytest.fixture
def run(base, toy, adapters, tmp_path):
    """The folder of a run that trained adapters and taught another end."""
    folder = tmp_path / "run"
    ends = {"base": str(base), "end_ids": [2]}
    save_adapter(folder / "adapter", toy.model.config, adapters, LORA, toy.tokenizer, **ends)
    (folder / "config.json").write_text("{}")
    return folder


def logits(language_model):
    return language_model.model.apply({"params": language_model.params}, TOKENS_BT)[0]


@pytest.mark.parametrize("part", ["", "adapter"])
def test_an_adapter_names_its_base(part, run, toy, adapters):
    found = load_language_model(run / part)
    expected = toy.model.apply({"params": attach_lora(toy.params, adapters, LORA)}, TOKENS_BT)[0]
    np.testing.assert_allclose(logits(found), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - logits(toy)).max() > 1e-3
    assert found.stop_ids == (1, 2)
    ids = AutoTokenizer.from_pretrained(run / "adapter")("a: 5").input_ids
    assert found.tokenizer("a: 5").input_ids == ids


def test_a_base_may_be_given(run, base, tmp_path):
    base.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"base.* is not a folder"):
        load_language_model(run)
    moved = load_language_model(run, base=tmp_path / "moved")
    assert moved.stop_ids == (1, 2)
    fields = json.loads((run / "adapter/adapter_config.json").read_text())
    fields["base_model_name_or_path"] = None
    (run / "adapter/adapter_config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="names no base model"):
        load_language_model(run)
    np.testing.assert_array_equal(
        logits(load_language_model(run, base=tmp_path / "moved")), logits(moved)
    )


def test_a_model_of_a_run(toy, tmp_path):
    folder = tmp_path / "run"
    save_pretrained(folder / "model", toy.model.config, toy.params, toy.tokenizer)
    np.testing.assert_array_equal(logits(load_language_model(folder)), logits(toy))
    with pytest.raises(InputError, match="is no adapter folder"):
        load_language_model(folder, base=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [3]),
        ("rank_pattern", {"q_proj": 8}),
        ("bias", "all"),
        ("init_lora_weights", "pissa"),
        ("target_modules", ["embed_tokens"]),
    ],
)
def test_what_adapters_cannot_do_here_is_refused_by_name(field, value, run):
    path = run / "adapter/adapter_config.json"
    fields = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=f"not computed here: {field}"):
        load_language_model(run)


def test_targets_named_by_an_expression_are_those_of_the_tensors(run, toy):
    path = run / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": "all-linear"}))
    assert load_adapter(run / "adapter", toy.model.config)[0].targets == LORA.targets


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_of_adapters(dtype, toy, adapters, tmp_path):
    save_adapter(tmp_path / "a", toy.model.config, adapters, LORA, dtype=dtype)
    _, read = load_adapter(tmp_path / "a", toy.model.config)
    expected = jax.tree.map(lambda x: x.astype(dtype).astype("float32"), adapters)
    jax.tree.map(np.testing.assert_array_equal, read, expected)


def test_adapters_that_are_not_finite_are_refused(toy, adapters, tmp_path):
    broken = jax.tree.map(lambda x: x.at[..., 0].set(np.inf), adapters)
    with pytest.raises(InputError, match=r"layers.0.self_attn.q_proj.lora_A.weight holds NaN"):
        save_adapter(tmp_path / "a", toy.model.config, broken, LORA)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")
def test_rslora_scales_as_peft_does(base, toy, tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    form = peft.LoraConfig(
        r=5, lora_alpha=8, lora_dropout=0.0, target_modules=["v_proj"], use_rslora=True
    )
    model = peft.get_peft_model(model, form).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path / "rs")
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT)).logits.numpy()
    found = load_language_model(tmp_path / "rs")
    assert np.abs(expected - logits(toy)).max() > 0.01
    np.testing.assert_allclose(logits(found), expected, rtol=0, atol=1e-5)
