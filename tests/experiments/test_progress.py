"""What a run shows in a terminal while it trains."""

import io
import re

import pytest
from rich.console import Console

from experiments.progress import comparison_bars, progress_bar

STEP = {"kind": "train", "step": 3, "loss": 1.25, "tokens_per_second": 4567.0}


def shown(*lines):
    """The last state of the bar."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=150, color_system=None)
    with progress_bar(console, "[red] run", 8) as show:
        for line in lines:
            show(line)
    return lines_of(terminal)[-1]


def lines_of(terminal):
    drawn = re.sub(r"\x1b\[[\d;?]*\w", "\r", terminal.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", drawn.strip())]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({}, "3/8 loss 1.250 4,567 tokens/s"),
        ({"mfu": 0.4}, "3/8 loss 1.250 4,567 tokens/s, 40% MFU"),
        ({"gamma": 0.3, "causal_mass": 0.1234}, "loss 1.250 causal mass 12.3% 4,567 tokens/s"),
        ({"gamma": 0.0, "causal_mass": 1.0}, "loss 1.250 causal mass 100.0% 4,567 tokens/s"),
        ({"gamma": 0.3}, "loss 1.250 causal mass - 4,567 tokens/s"),  # none is annotated
    ],
)
def test_loss_and_speed_and_the_mass_of_a_guided_run(line, says):
    last = shown(STEP | {"step": 2, "gamma": 0.3, "causal_mass": 0.5}, STEP | line)
    assert last.startswith("[red] run ")
    assert says in last


def test_evaluations_move_nothing():
    assert "2/8 loss 1.250" in shown(STEP | {"step": 2}, {"kind": "eval", "step": 5, "iid": 0.5})


def comparison(is_terminal):
    """Two of three runs, the second half way: all that is printed."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=is_terminal, width=150, color_system=None)
    with comparison_bars(console, 3) as show_run:
        with show_run("[red] one", 8) as show:
            show(STEP | {"step": 8})
            show({"kind": "eval", "step": 8, "iid": 0.5})
        with show_run("two", 8) as show:
            show(STEP | {"step": 4, "loss": 0.5, "gamma": 0.3})
    return lines_of(terminal)


def test_a_comparison_says_how_far_all_of_its_runs_are():
    lines = comparison(is_terminal=True)
    assert "[red] one: loss 1.250 4,567 tokens/s" in lines
    assert "two: loss 0.500 causal mass - 4,567 tokens/s" in lines
    assert any(line.startswith("all runs ") and " 1/3 " in line for line in lines)
    assert " 2/3 " in [line for line in lines if line.startswith("all runs ")][-1]


def test_without_a_terminal_there_is_a_line_for_each_run():
    lines = comparison(is_terminal=False)
    assert lines == [
        "[red] one: loss 1.250 4,567 tokens/s",
        "two: loss 0.500 causal mass - 4,567 tokens/s",
    ]
