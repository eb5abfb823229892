"""Time train steps with and without guidance, in turn, on the same batch."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cat_jax.config import Guidance
from experiments.benchmarking.sizes import Sizes
from experiments.command_line import exit_status


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Results, written to OUT.json and OUT.md.
        lengths: Positions of a sequence, one measurement each.
        sequences: Sequences of a batch.
        samples: Pairs of steps, after one pair that is not counted.
        model: Model.
        guidance: Second objective of the guided step.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    lengths: tuple[int, ...] = (512, 1_024)
    sequences: int = 2
    samples: int = 10
    model: Sizes = field(default_factory=Sizes)
    guidance: Guidance = field(default_factory=lambda: Guidance(form="mass_nll", scope="head"))


def main() -> None:
    """Measure at each length, write the results and print their page."""
    args = tyro.cli(Args, prog="python -m experiments.benchmark_step", description=__doc__)
    from experiments.benchmarking.step import measure
    from experiments.benchmarking.tables import step_page
    from experiments.results import write_results

    counts = {"sequences": args.sequences, "samples": args.samples}
    results = [measure(args.model, args.guidance, length=n, **counts) for n in args.lengths]
    page = step_page(results, args.model, args.samples)
    write_results(args.out, [vars(result) for result in results], page)
    print(page)


if __name__ == "__main__":
    sys.exit(exit_status(main))
