"""``fit`` on models in memory, with and without adapters, and what of them exists how often."""

import dataclasses

import jax
import numpy as np
import pytest
from small_runs import LORA, RECORDS, SCRATCH, assert_differ, assert_same, copied, run
from transformers import AutoTokenizer

from cat_jax.errors import InputError
from cat_jax.models import attach_lora, load_adapter, load_pretrained
from cat_jax.models.huggingface.config import read_config
from cat_jax.testing import toy_model


def test_a_model_in_memory_stays_as_it_is():
    toy = toy_model()
    before = copied(toy.params)
    first = run(toy)
    assert_same(toy.params, before)
    after = copied(first.params)
    second = run(first)
    assert_same(first.params, after)
    assert_differ(second.params["embed"], after["embed"])
    assert second.history[-1]["loss"] < first.history[0]["loss"]


def test_a_saved_model_is_read_back(tmp_path):
    result = run(toy_model(num_heads=4, num_kv_heads=2, head_dim=4))
    assert result.save_pretrained(tmp_path / "model").name == "model"
    config, params = load_pretrained(tmp_path / "model")
    assert config == result.model.config
    assert_same(params, result.params)
    text = RECORDS[0].text
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")(text).input_ids
    assert ids == result.tokenizer(text).input_ids
    assert read_config(tmp_path / "model").eos_token_id == result.tokenizer.eos_token_id
    with pytest.raises(InputError, match="model"):
        result.save_pretrained(tmp_path / "model")


def logits(model, params):
    tokens = np.random.default_rng(0).integers(3, 99, (3, 11))
    return model.apply({"params": params}, tokens)[0]


def test_adapters_of_a_model_in_memory(tmp_path):
    toy = toy_model()
    before = copied(toy.params)
    result = run(toy, lora=LORA, workdir=tmp_path / "run")
    assert_same(toy.params, before)
    kernel = result.params["layers"]["attention"]["query"]["kernel"]
    assert_same(kernel, before["layers"]["attention"]["query"]["kernel"])
    assert_same(result.params["embed"], before["embed"])
    assert result.adapters["layers"]["mlp"]["down"]["b"].any()
    result.save_pretrained(tmp_path / "adapter")
    for folder in (tmp_path / "adapter", tmp_path / "run" / "adapter"):
        lora, adapters = load_adapter(folder, toy.model.config)
        assert_same(adapters, result.adapters)
        assert (lora.rank, lora.scale, set(lora.targets)) == (2, LORA.scale, set(LORA.targets))
        read = logits(toy.model, attach_lora(toy.params, adapters, lora))
        np.testing.assert_array_equal(read, logits(result.model, result.params))
    assert np.abs(read - logits(toy.model, toy.params)).max() > 1e-3


@pytest.mark.parametrize("lora", [None, LORA])
def test_training_goes_on_from_a_model_with_adapters(tmp_path, lora):
    first, params = run(lora=LORA), []

    def note(result):
        params.append(logits(result.model, result.params))
        return {}

    second = run(first, lora=lora, evaluators=[note])
    np.testing.assert_allclose(params[0], logits(first.model, first.params), atol=1e-4)
    folder = second.save_pretrained(tmp_path / "saved")
    assert (folder / "adapter_config.json").exists() == (lora is not None)
    if lora is None:
        _, read = load_pretrained(tmp_path / "saved")
        np.testing.assert_array_equal(
            logits(second.model, read), logits(second.model, second.params)
        )


def live(shape):
    return sum(array.shape == shape for array in jax.live_arrays())


def test_parameters_exist_once():
    """Beside them, Adam's two moments."""
    counts = []

    def evaluator(result):
        shape = result.params["embed"]["embedding"].shape
        counts.append(live(shape))
        return {"vocabulary": shape[0]}

    def callback(line):
        if line["kind"] == "eval":
            counts.append(live((int(line["vocabulary"]), 36)))

    source = dataclasses.replace(SCRATCH, width=36)
    run(source, evaluators=[evaluator], callbacks=[callback])
    assert counts == [3] * 8


def test_a_model_in_memory_is_copied_once():
    toy, counts = toy_model(width=28), []
    shape = toy.params["embed"]["embedding"].shape
    result = run(
        toy,
        evaluators=[lambda result: {"a": 0.0}],
        callbacks=[lambda line: counts.append(live(shape))],
    )
    assert len(counts) == 7
    assert max(counts) <= 1 + 3
    assert live(shape) == 2
    assert result.params["embed"]["embedding"].shape == shape
