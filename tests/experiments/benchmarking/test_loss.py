"""The implementations compute the same thing, and the benchmark would notice if they did not."""

from dataclasses import replace

import pytest

from cat_jax.errors import InputError
from experiments.benchmarking.loss import IMPLEMENTATIONS, Result, Task, check_agreement, measure
from experiments.benchmarking.tables import loss_page


def test_all_implementations_agree():
    pytest.importorskip("torch")
    results = [measure(Task(name, 75, repeats=1)) for name in IMPLEMENTATIONS]
    check_agreement(results)
    assert results[0].loss > 0.1
    assert results[0].gradient_norm > 1e-3
    with pytest.raises(InputError, match=r"differ at T = 75: the gradient_norm of xla is 2\.0"):
        check_agreement([results[0], replace(results[1], gradient_norm=2.0)])


def test_the_page_has_a_row_per_length():
    results = [
        Result(name, length, 0.5, 0.1, length / 1000 + n, 2**20 * (n + length))
        for length in (33, 65)
        for n, name in enumerate(IMPLEMENTATIONS)
    ]
    table = [line for line in loss_page(results).splitlines() if line.startswith("|")]
    assert table[0].startswith(
        "| T | torch, maps and rows, s | torch, maps and rows, MiB | xla, s |"
    )
    assert table[2:] == [
        "| 33 | 0.033 | 33 | 1.03 | 34 | 2.03 | 35 |",
        "| 65 | 0.065 | 65 | 1.06 | 66 | 2.06 | 67 |",
    ]
