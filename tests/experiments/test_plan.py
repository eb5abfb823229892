"""The command: what it refuses, what it writes, and one real program."""

import json
import sys
from functools import partial

import pytest

from experiments.planning.public_models import find_model

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def run(run_command):
    return partial(run_command, "plan")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "Llama-9", "--topology", "v5e-16"), "no model named 'Llama-9'"),
        (("--model", "Qwen3-8B", "--topology", "v5e-17"), "no topology named 'v5e-17'"),
        (
            ("--topology", "v5e-16", "--length", 0),
            "--length must be at least 1 and at most 2,147,483,647, got 0",
        ),
        (("--topology", "v5e-16", "--accumulate", 0), "--accumulate must be at least 1"),
        (("--topology", "v5e-16", "--mesh", 4, 2, 1, 1), "mesh 4 x 2 x 1 x 1 (data"),
        (("--topology", "v5e-16", "--mesh", 4, 0, 1, 1), "--mesh must be at least 1"),
        (("--topology", "v5e-16"), "the TPU compiler is not installed"),
        ((), "--topology must be given, or"),
        (("--device-gb", 0), "--device-gb must be greater than 0"),
        (("--device-gb", 24, "--out", "a"), "--out takes the results of topologies"),
        (
            ("--device-gb", 24, "--frozen-dtype", "int8"),
            "--frozen-dtype is of a model under adapters; give lora as well",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(monkeypatch, run, folder, words, said):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    given = words if "--model" in words else ("--model", folder, *words)
    status, _, errors = run(*given)
    assert status == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_device_is_planned_for_without_the_compiler(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    words = ("--model", "Llama-3.1-8B", "--device-gb", 12, 24, "--lora", "--length", 1024)
    status, printed, _ = run(*words, "--frozen-dtype", "int8")
    assert status == 0
    titles, _, row = printed.splitlines()[:3]
    assert titles.endswith("| total, GB | fits 12 GB | fits 24 GB |")
    assert row.startswith("| Llama-3.1-8B | lora on int8 | 1 x 1024 | 9.09 |")
    assert row.endswith("| no | yes |")


def test_models_are_public_or_local(folder):
    assert find_model("Llama-3.1-70B").num_layers == 80
    assert find_model(str(folder)).width == 256


@pytest.mark.slow
def test_a_real_program(run, folder, tmp_path, tpu_compiler):
    """A model that four chips share: the state to the byte, and the layers gathered each pass."""
    words = ("--model", folder, "--topology", "v5e-4", "--length", 256, "--mesh", 1, 4, 1, 1)
    out = tmp_path / "results/plan"
    status, printed, _ = run(*words, "--out", out)
    assert status == 0
    (found,) = json.loads(out.with_suffix(".json").read_text())
    assert found["fits"]
    assert found["mesh"] == [1, 4, 1, 1]
    layers = 3 * (4 * 256 * 256 + 3 * 256 * 640)
    count = layers + 2 * 512 * 256 + (2 * 3 + 1) * 256
    for name in ("plain", "cat"):
        program = found[name]
        batch = program["arguments"] - 12 * count / 4
        assert 0 < batch < 65_536  # padded to whole tiles
        assert program["arguments"] < program["peak"] < 0.1 * found["hbm"]
        received = sum(program["received"].values())
        assert 3 * 2 * layers * 3 / 4 < received < 3 * (3 * 2 * layers * 3 / 4)
    assert found["cat"]["roofline"]["kernels"] >= found["plain"]["roofline"]["kernels"]
    table = out.with_suffix(".md").read_text()
    assert "| tiny | all | v5e-4 (4 chips) | 4 x 256 | yes | 1 x 4 x 1 x 1 |" in table
    assert table.splitlines()[-3] in printed
    assert found["compiler"] in table
