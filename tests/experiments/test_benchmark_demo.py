"""The timed demo, on a few records and steps."""

import sys
from pathlib import Path

import pytest

from experiments.benchmark_demo import Demo, missed_bars, run_demo, table

PHASES = ["preparation", "evaluation", "compilation", "training", "figures", "start-up", "rest"]


def demo(seed, seconds, ood):
    return Demo(seed, seconds, {"training": seconds - 1.5, "rest": 1.5}, 0.991, ood)


def test_bars_are_of_the_slowest_run_and_of_the_mean_accuracy():
    assert not missed_bars([demo(0, 149.0, 0.99), demo(1, 20.0, 1.0)])
    assert missed_bars([demo(0, 150.0, 0.99), demo(1, 20.0, 0.996)]) == [
        "150 s after installation, to stay under 150",
        "OOD accuracy of CAT 99.3%, to reach 99.5%",
    ]


def test_the_page_has_a_row_for_each_seed():
    page = table([demo(3, 40.0, 0.99), demo(5, 20.0, 1.0)], 61.2, "two cores")
    assert "| 3 | 40.0 | 38.5 | 1.5 | 99.1 | 99.0 |" in page
    assert "OOD accuracy: 99.5%, standard deviation 0.7%." in page
    assert "before: 61 s.\n\ntwo cores\n" in page


@pytest.mark.slow
def test_a_short_demo_is_timed(tmp_path):
    few = ["--data.train-records", "300", "--data.test-records", "20", "--train.steps", "4"]
    found = run_demo(Path(sys.executable), tmp_path, 7, [*few, "--train.batch-size", "8"])
    assert sorted(found.phases) == sorted(PHASES)
    assert min(found.phases.values()) > 0
    assert sum(found.phases.values()) == pytest.approx(found.seconds)
    assert found.phases["compilation"] > 1  # nothing of other runs is there
    assert 0 <= found.ood <= 1
