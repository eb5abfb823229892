"""Write records of the Spurious Token Game as JSONL, for training elsewhere or for reading."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from cat_jax import tasks
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.ranges import Count, Seed, check_ranges
from cat_jax.tasks.factors import Effect, Granularity, Split
from experiments.command_line import exit_status, parse_arguments

SIZES = {"stg_l": (1600, 400), "stg_m": (800, 400), "stg_s": (400, 400), "stg_h": (3000, 1000)}
"""Training and test records of the published sizes."""


@dataclass(frozen=True)
class Args:
    """Three files in ``folder``: ``train.jsonl``, ``iid.jsonl`` and ``ood.jsonl``.

    Attributes:
        folder: Folder to write; it must not hold files of these names.
        size: Published size; the records are our own draws from the same distribution.
        train_records: Number of training records, if not the published one.
        test_records: Number of IID and of OOD records, if not the published one.
        seed: Seed of the draws.
        granularity: Annotated cause: "Smoking: 8" (``span``) or "8" (``value``).
        effect: Annotated effect: the answer (``target``) or "Answer: ..." (``answer``).
        trace: Annotate the text after each cause too, as depending on that cause alone.
    """

    folder: tyro.conf.Positional[str]
    size: Literal["stg_l", "stg_m", "stg_s", "stg_h"] = "stg_l"
    train_records: Count | None = None
    test_records: Count | None = None
    seed: Seed = 0
    granularity: Granularity = "span"
    effect: Effect = "target"
    trace: bool = False

    def __post_init__(self):
        check_ranges(self, "")


def write_files(args: Args) -> list[Path]:
    """Write the three files, record by record, each whole or not at all.

    Raises:
        InputError: A file is there already, or a number of records is not positive.
    """
    train, test = SIZES[args.size]
    game = tasks.stg_h if args.size == "stg_h" else tasks.stg
    task = game(
        train_records=train if args.train_records is None else args.train_records,
        test_records=test if args.test_records is None else args.test_records,
        granularity=args.granularity,
        effect=args.effect,
        trace=args.trace,
    )
    splits: tuple[Split, ...] = get_args(Split)
    paths: dict[Split, Path] = {s: Path(args.folder) / f"{s}.jsonl" for s in splits}
    for path in paths.values():
        if path.exists():
            raise InputError(f"{path} is there already; choose another folder or remove it")
    Path(args.folder).mkdir(parents=True, exist_ok=True)
    for split, path in paths.items():
        count = task.train_records if split == "train" else task.test_records
        write_records(path, itertools.islice(task.stream(split, args.seed), count))
    return list(paths.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    prog = "python -m experiments.generate_stg"
    for path in write_files(parse_arguments(Args, prog=prog, args=arguments)):
        print(path)


if __name__ == "__main__":
    sys.exit(exit_status(main))
