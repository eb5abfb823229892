"""Start-up: what is measured, and bars that are told when missed."""

import pytest

from cat_jax.errors import InputError
from experiments import benchmark_startup
from experiments.benchmark_startup import Startup, commands, first_step_seconds, missed_bars, page

GOOD = Startup(0.1, {"plan": 1.0, "generate": 1.5}, 9.0)


def test_bars_that_are_missed_are_told_by_how_far(monkeypatch):
    monkeypatch.setattr(benchmark_startup, "MOST_HELP_SECONDS", 2.0)
    assert missed_bars(GOOD) == []
    assert missed_bars(Startup(0.3, {"plan": 2.5, "generate": 1.0}, 20.0)) == [
        "import cat_jax: 0.30 s, to stay under 0.3",
        "plan --help: 2.50 s, to stay under 2",
        "first step of the demo: 20.00 s, to stay under 15",
    ]


def test_the_page_names_the_slowest_command():
    text = page(GOOD, "two cores")
    assert "slowest of 2 commands (`generate`) | 1.50 |" in text
    assert text.endswith("two cores\n")


def test_every_command_is_measured():
    assert {"train_stg", "finetune", "plan", "generate", "benchmark_startup"} <= set(commands())


@pytest.mark.slow
def test_the_first_step_is_seen():
    sizes = "--model.width", "8", "--model.num-heads", "2", "--model.num-kv-heads", "1"
    small = *sizes, "--data.train-records", "70", "--data.test-records", "8"
    assert 0.5 < first_step_seconds(*small, cached=True) < 120


def test_a_demo_that_ends_before_a_step_is_told():
    with pytest.raises(InputError, match="the demo ended, status 2, before a step"):
        first_step_seconds("--train.steps", "none")
