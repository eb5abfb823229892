"""Time the guidance loss on the CPU, beside a torch version that loops over full attention maps."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_line import exit_status


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Results, written to OUT.json and OUT.md.
        lengths: Positions of the sequence, one measurement each.
        repeats: Timed calls, after one that is not counted.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    repeats: int = 5


def main() -> None:
    """Measure at each length, print and write the results.

    Raises:
        InputError: torch is missing, or the implementations differ.
    """
    args = tyro.cli(Args, prog="python -m experiments.benchmark_loss", description=__doc__)
    from experiments.benchmarking.loss import compare
    from experiments.benchmarking.tables import loss_page
    from experiments.results import write_results

    results = []
    for length in args.lengths:
        results += compare(length, args.repeats)
        print(loss_page(results), flush=True)
    write_results(args.out, [vars(result) for result in results], loss_page(results))


if __name__ == "__main__":
    sys.exit(exit_status(main))
