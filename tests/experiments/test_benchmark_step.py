"""The benchmark times real steps of both kinds, on the same batch."""

import json
import sys

import jax
import numpy as np
import pytest

from experiments import benchmark_step
from experiments.benchmark_step import Result, make_batch
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


def test_the_batch_counts_its_pairs():
    batch = make_batch(2, 19, 40)
    q_BT, k_BT = (x[..., 0].astype(int) for x in (batch.q_bits_BTW, batch.k_bits_BTW))
    assert 0 < q_BT.sum() < q_BT.size
    np.testing.assert_array_equal(batch.causal_count_BT, q_BT * k_BT.cumsum(1))
    np.testing.assert_array_equal(batch.visible_count_BT, [range(1, 20)] * 2)


@pytest.mark.slow
def test_the_command_writes_both_files(tmp_path, monkeypatch, capsys):
    words = ["benchmark_step", str(tmp_path / "a/step"), "--lengths", "33", "--samples", "2"]
    words += [word for name, n in TINY.items() for word in (f"--model.{name}", str(n))]
    monkeypatch.setattr(sys, "argv", words)
    taken = []
    monkeypatch.setattr(
        benchmark_step, "make_train_step", spy(benchmark_step.make_train_step, taken)
    )
    assert exit_status(benchmark_step.main) == 0
    (result,) = (Result(**row) for row in json.loads((tmp_path / "a/step.json").read_text()))
    assert result.length == 33
    assert 0 < result.ratio_low <= result.ratio <= result.ratio_high
    assert result.cat_rates["tokens_per_second"] > 0
    assert "| 33 | 2 |" in (tmp_path / "a/step.md").read_text()
    assert (tmp_path / "a/step.md").read_text() in capsys.readouterr().out
    plain, cat = taken
    assert {len(plain), len(cat)} == {3}  # one to warm up, and the samples
    assert "guidance_loss" not in plain[-1]
    assert cat[-1]["guidance_loss"] < cat[0]["guidance_loss"]


def spy(make, taken):
    """Keeps the metrics of every step that is taken."""

    def made(*args, **options):
        step, metrics = make(*args, **options), []
        taken.append(metrics)

        def taking(state, batch):
            state, values = step(state, batch)
            metrics.append(jax.device_get(values))
            return state, values

        return taking

    return made
