"""Steps of this package and of torch on the same batch are the same steps."""

import json

import pytest

pytest.importorskip("torch")

from cat_jax.models import save_pretrained
from cat_jax.testing import toy_model
from experiments.benchmark_against_torch import Result, missed_bars

COMMAND = "benchmark_against_torch"


@pytest.mark.slow
def test_both_take_the_same_steps(tmp_path, run_command):
    toy = toy_model(max_positions=64)
    save_pretrained(tmp_path / "toy", toy.model.config, toy.params, toy.tokenizer)
    out = tmp_path / "out"
    options = "--length", 21, "--sequences", 3, "--targets", 5, "--steps", 2
    options += "--trace", tmp_path / "trace"
    status, page, errors = run_command(COMMAND, out, "--model", tmp_path / "toy", *options)
    assert status in (0, 1), errors
    results = {
        x["contender"]: x for x in json.loads(out.with_suffix(".json").read_text())["results"]
    }
    assert all(len(x["seconds"]) == 2 and x["peak_bytes"] > 0 for x in results.values())
    losses = {name: x["loss"] for name, x in results.items()}
    assert losses["plain"] == pytest.approx(losses["torch_plain"], abs=2e-3)
    assert losses["cat"] == pytest.approx(losses["torch_cat"], abs=2e-3)
    assert losses["torch_cat"] == pytest.approx(losses["torch_cat_loops"], abs=1e-5)
    assert losses["cat"] > losses["plain"] + 0.1
    assert (status == 1) == ("missed:" in page)
    traced = {x.parent.relative_to(tmp_path / "trace").parts[0]
              for x in (tmp_path / "trace").rglob("*.xplane.pb")}  # fmt: skip
    assert traced == {"plain_21", "cat_21"}


def result(name, seconds, peak=10):
    return Result(name, 68, 16, [seconds], peak, 1.0)


def test_bars_that_are_missed_are_told_by_how_far():
    good = [result("plain", 0.8), result("torch_plain", 1.0), result("cat", 0.82)]
    assert missed_bars(good, "cpu") == []
    bad = [result("plain", 0.9, peak=20), result("torch_plain", 1.0), result("cat", 1.2)]
    assert missed_bars(bad, "cpu") == [
        "T = 68, time plain/torch_plain: 0.90, to reach 0.85",
        "T = 68, time cat/plain: 1.33, to reach 1.05",
        "T = 68, memory plain/torch_plain: 2.00, to reach 1",
    ]
    assert missed_bars([Result("cat", 8, 1, [], 0, 0.0, "CUDA out of memory")], "gpu") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "nowhere"), "nowhere has no config.json"),
        (("--model", "nowhere", "--length", "9"), "give --sequences once for each --length"),
    ],
)
def test_bad_settings(words, says, run_command):
    status, _, errors = run_command(COMMAND, "out", *words)
    assert status == 2
    assert says in " ".join(errors.split())
