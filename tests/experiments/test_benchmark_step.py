import json
import sys

import pytest

from experiments import benchmark_step
from experiments.benchmarking.step import Result
from experiments.command_line import exit_status

TINY = {
    "vocab-size": 40,
    "width": 8,
    "mlp-width": 12,
    "num-layers": 2,
    "num-heads": 4,
    "num-kv-heads": 2,
    "head-dim": 6,
}


@pytest.mark.slow
def test_the_command_writes_both_files(tmp_path, monkeypatch, capsys):
    words = ["benchmark_step", str(tmp_path / "a/step"), "--lengths", "33", "17", "--samples", "2"]
    words += [word for name, n in TINY.items() for word in (f"--model.{name}", str(n))]
    monkeypatch.setattr(sys, "argv", words)
    assert exit_status(benchmark_step.main) == 0
    results = [Result(**values) for values in json.loads((tmp_path / "a/step.json").read_text())]
    assert [(result.length, result.sequences) for result in results] == [(33, 2), (17, 2)]
    page = (tmp_path / "a/step.md").read_text()
    assert "| 33 | 2 |" in page
    assert page in capsys.readouterr().out
