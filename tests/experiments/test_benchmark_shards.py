"""The benchmark of prepared shards, on few records."""

import json
import sys

import pytest

from cat_jax.errors import InputError
from experiments import benchmark_shards
from experiments.benchmarking.shards import in_own_process


@pytest.mark.slow
def test_figures_and_page(tmp_path, monkeypatch, capsys):
    out = tmp_path / "shards"
    monkeypatch.setattr(sys, "argv", ["", str(out), "--records", "2048"])
    benchmark_shards.main()
    (result,) = json.loads(out.with_name("shards.json").read_text())
    assert result["records"] == 2048
    # Not that of this process, which is larger.
    assert 2**26 < result["prepare_bytes"] < result["train_bytes"] < 2**32
    page = out.with_name("shards.md").read_text()
    assert f"| 2,048 | {result['prepare_bytes'] / 2**20:.0f} MiB |" in page
    assert capsys.readouterr().out == page + "\n"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(InputError, match=r"prepare failed: .*none\.jsonl"):
        in_own_process("prepare", tmp_path / "none.jsonl", tmp_path / "out")
