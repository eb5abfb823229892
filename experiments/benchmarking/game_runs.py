"""Runs of a comparison on the Spurious Token Game whose explanations are measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, Seed, check_ranges

if TYPE_CHECKING:
    from cat_jax.data.records import Record
    from cat_jax.tasks import Task


@dataclass(frozen=True)
class RunsArgs:
    """What to measure.

    Attributes:
        runs: Folder of a comparison, which has the runs of each seed and method.
        out: Stem of the files to write, OUT.json and OUT.md.
        records: Records out of distribution to rank the numbers of.
        samples: Draws for each number.
        seed: Seed of the records and of chance.
    """

    runs: Annotated[str, tyro.conf.Positional]
    out: Annotated[str, tyro.conf.Positional]
    records: Count = 200
    samples: Count = 8
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self, "")


def run_folders(runs: str) -> Iterator[tuple[str, Path]]:
    """Yield the method and the folder of each run of a comparison, the first seed first.

    Raises:
        InputError: There are none.
    """
    folders = sorted(Path(runs).glob("seed-*/*/"))
    if not folders:
        raise InputError(f"{runs} has no folders seed-SEED/METHOD; give that of a comparison")
    for folder in folders:
        yield folder.name, folder


def ood_records(args: RunsArgs) -> "tuple[Task, list[Record]]":
    """Return the game and its records out of distribution."""
    from cat_jax.data.records import Record
    from cat_jax.tasks import stg

    task = stg(test_records=args.records)
    return task, [x for x in task.records("ood", args.seed) if isinstance(x, Record)]
