import json
import sys

import pytest

from experiments import benchmark_loss
from experiments.benchmarking.loss import IMPLEMENTATIONS, Result
from experiments.benchmarking.tables import loss_page
from experiments.command_line import exit_status


@pytest.mark.slow
def test_the_command_writes_both_files(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    words = ["benchmark_loss", str(tmp_path / "a/loss"), "--lengths", "33", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", words)
    assert exit_status(benchmark_loss.main) == 0
    results = [Result(**values) for values in json.loads((tmp_path / "a/loss.json").read_text())]
    assert [(r.implementation, r.length) for r in results] == [(n, 33) for n in IMPLEMENTATIONS]
    assert all(result.seconds > 0 and result.peak_bytes >= 0 for result in results)
    assert (tmp_path / "a/loss.md").read_text() == loss_page(results)
