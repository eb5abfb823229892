"""Measure the peak memory of preparing shards and of training on them."""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cat_jax.ranges import Count, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Results, written to OUT.json and OUT.md.
        records: Numbers of records, one measurement each.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    records: tuple[Count, ...] = (100_000, 1_000_000)

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Measure at each number of records, print and write the results.

    Raises:
        InputError: A process failed.
    """
    args = parse_arguments(Args, prog="python -m experiments.benchmark_shards", description=__doc__)
    from experiments.benchmarking.shards import measure, page
    from experiments.results import write_results

    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    results = []
    for records in args.records:
        results.append(measure(records))
        print(page(results, machine), flush=True)
    write_results(args.out, [vars(result) for result in results], page(results, machine))


if __name__ == "__main__":
    sys.exit(exit_status(main))
