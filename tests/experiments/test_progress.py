"""What a run shows in a terminal while it trains."""

import io
import re

import pytest
from rich.console import Console

from experiments.progress import progress_bar

STEP = {"kind": "train", "step": 3, "loss": 1.25, "tokens_per_second": 4567.0}


def shown(*lines):
    """The last state of the bar."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=150, color_system=None)
    with progress_bar(console, "[red] run", 8) as show:
        for line in lines:
            show(line)
    drawn = re.sub(r"\x1b\[[\d;?]*\w", "\r", terminal.getvalue())
    return re.split(r"[\r\n]+", drawn.strip())[-1]


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
