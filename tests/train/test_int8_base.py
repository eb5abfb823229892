"""Adapters on a frozen model in int8: what they learn, what is exported, and how a run resumes."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_runs import TRAIN, assert_same, copied, run

from cat_jax.analysis import attention_maps
from cat_jax.config import LoraConfig, Optimizer, PretrainedLora
from cat_jax.errors import InputError
from cat_jax.evaluation import generate
from cat_jax.models import Int8Kernel, dequantize_params, quantize_params, save_pretrained
from cat_jax.testing import raise_at, toy_model, toy_records

LORA = LoraConfig(rank=4, dropout=0.1, targets=("q_proj", "o_proj", "down_proj"))
TOKENS_BT = np.random.default_rng(0).integers(3, 99, (3, 11))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "base"
    toy = toy_model(width=32, mlp_width=48)
    save_pretrained(folder, toy.model.config, toy.params, toy.tokenizer)
    return PretrainedLora(str(folder), dtype="float32", lora=LORA)


@pytest.fixture(scope="module")
def int8(base):
    return dataclasses.replace(base, frozen_dtype="int8")


@pytest.fixture(scope="module")
def undisturbed(int8):
    return run(int8)


def kernels(params):
    layers = params["layers"]
    return [
        block[name]["kernel"]
        for block in (layers["attention"], layers["mlp"])
        for name in block
        if "kernel" in block[name]
    ]


def test_adapters_learn_as_much_as_on_the_float_base(base, int8):
    """What int8 changes is small beside what another order of the data and another start do."""

    def final_loss(source, seed):
        result = run(
            dataclasses.replace(source, lora=LoraConfig(rank=4, alpha=4.0, dropout=0.0)),
            train=dataclasses.replace(TRAIN, steps=80, batch_size=16, eval_every=80),
            optimizer=Optimizer(learning_rate=0.005),
            guidance=None,
            validation=toy_records("iid", count=40),
            seed=seed,
        )
        first, last = (line for line in result.history if line["kind"] == "eval")
        assert last["next_token_loss"] < 0.4 * first["next_token_loss"]
        return last["next_token_loss"]

    one, other = (final_loss(base, seed) for seed in (0, 2))
    assert 0 < abs(final_loss(int8, 0) - one) < 0.2 * abs(one - other)


def test_the_base_is_in_int8_and_stays(int8, undisturbed):
    held = kernels(undisturbed.params)
    assert len(held) == 7
    assert all(isinstance(kernel, Int8Kernel) for kernel in held)
    assert_same(held, kernels(run(int8, seed=1).params))


def test_a_stopped_run_goes_on_to_the_same_bits(int8, undisturbed, tmp_path):
    with pytest.raises(KeyError):
        run(int8, workdir=tmp_path / "run", callbacks=[raise_at(4, KeyError())])
    resumed = run(int8, workdir=tmp_path / "run")
    assert [line["step"] for line in resumed.history if line["kind"] == "train"] == [2, 4, 5]
    assert_same(resumed.adapters, undisturbed.adapters)
    saved = (tmp_path / "run/checkpoints/5/state/_METADATA").read_text()
    assert "kernel" not in saved


def test_a_run_of_before_the_setting_goes_on_and_in_int8_is_another(base, int8, tmp_path):
    finished = run(base, workdir=tmp_path / "run")
    path = tmp_path / "run/config.json"
    settings = json.loads(path.read_text())
    assert settings["model"].pop("frozen_dtype") is None
    path.write_text(json.dumps(settings))
    assert_same(run(base, workdir=tmp_path / "run").adapters, finished.adapters)
    with pytest.raises(InputError, match=r"model\.frozen_dtype: None there, 'int8' now"):
        run(int8, workdir=tmp_path / "run")


def test_the_adapter_is_exported_as_from_a_float_base(base, undisturbed, tmp_path):
    other = run(base)
    same = dataclasses.replace(undisturbed, adapters=other.adapters)
    for name, result in (("float", other), ("int8", same)):
        result.save_pretrained(tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "float").iterdir())
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(names)
    assert sorted(path.name for path in (tmp_path / "int8").iterdir()) == names
    for name in names:
        files = [(tmp_path / folder / name).read_bytes() for folder in ("float", "int8")]
        assert files[0] == files[1], name


def test_answers_and_maps_are_those_of_the_dequantised_model(undisturbed):
    model, params = undisturbed.model.clone(partition=None), undisturbed.params
    floats = dequantize_params(params)
    np.testing.assert_allclose(
        attention_maps(model, params, TOKENS_BT),
        attention_maps(model, floats, TOKENS_BT),
        atol=1e-5,
    )
    prompts = [list(map(int, row)) for row in TOKENS_BT]
    one, other = (
        generate(model, tree, prompts, max_new_tokens=5, stop_ids=()) for tree in (params, floats)
    )
    assert one == other


def test_adapters_on_a_model_in_memory_and_from_there():
    toy = toy_model()
    frozen = dataclasses.replace(toy, params=quantize_params(toy.params))
    before = copied(frozen.params)
    first = run(frozen, lora=LORA)
    assert_same(frozen.params, before)
    assert first.history[-1]["loss"] < first.history[0]["loss"]
    with pytest.raises(InputError, match="kernels in int8, which cannot be trained"):
        run(first)
    second = run(first, lora=LORA)  # its adapters are merged into float32
    held = [kernel for kernel in kernels(second.params) if isinstance(kernel, Int8Kernel)]
    assert len(held) == 7 - len(LORA.targets)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(second.params)} == {"int8", "float32"}
