"""The sides of the benchmark compute the same thing, and it would notice if they did not."""

import json
import sys
from dataclasses import replace

import pytest

from cat_jax.errors import InputError
from experiments import benchmark_loss
from experiments.benchmark_loss import SIDES, Result, check_agreement, measure, page
from experiments.command_line import exit_status


def test_all_sides_agree():
    pytest.importorskip("torch")
    results = [measure(side, 75, repeats=1) for side in SIDES]
    check_agreement(results)
    assert results[0].loss > 0.1
    assert results[0].gradient_norm > 1e-3
    with pytest.raises(InputError, match=r"T = 75: the gradient_norm of xla is 2\.0"):
        check_agreement([results[0], replace(results[1], gradient_norm=2.0)])


@pytest.mark.slow
def test_the_command_writes_both_files(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    words = ["benchmark_loss", str(tmp_path / "a/loss"), "--lengths", "33", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", words)
    assert exit_status(benchmark_loss.main) == 0
    rows = [Result(**row) for row in json.loads((tmp_path / "a/loss.json").read_text())]
    assert [(row.side, row.length) for row in rows] == [(side, 33) for side in SIDES]
    assert all(row.seconds > 0 and row.peak_bytes >= 0 for row in rows)
    assert (tmp_path / "a/loss.md").read_text() == page(rows)
    assert "| 33 |" in page(rows)
