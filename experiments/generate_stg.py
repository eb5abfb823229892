"""Writes rows of the Spurious Token Game as JSONL, for training elsewhere or for reading."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from cat_jax.config import GeneratedData
from cat_jax.data.records import write_jsonl
from cat_jax.errors import InputError
from cat_jax.tasks.factors import Effect, Granularity, Split
from cat_jax.tasks.stg import SIZES
from experiments.command_line import exit_status
from experiments.splits import records


@dataclass(frozen=True)
class Files:
    """Three files in ``folder``: ``train.jsonl``, ``iid.jsonl`` and ``ood.jsonl``.

    Attributes:
        folder: where to write; it must not hold files of these names.
        size: a published size; the rows are our own draws from the same distribution.
        train_rows: another number of training rows.
        test_rows: another number of IID and of OOD rows.
        seed: same seed, same rows.
        granularity: annotate a cause as "Smoking: 8" (``span``) or "8" (``value``).
        effect: annotate the answer (``target``) or "Answer: ..." (``answer``).
        trace: annotate the text after each cause too, as depending on that cause alone.
    """

    folder: tyro.conf.Positional[str]
    size: Literal["stg_l", "stg_m", "stg_s", "stg_h"] = "stg_l"
    train_rows: int | None = None
    test_rows: int | None = None
    seed: int = 0
    granularity: Granularity = "span"
    effect: Effect = "target"
    trace: bool = False


def write_files(files: Files) -> list[Path]:
    """Writes the three files, row by row, each whole or not at all.

    Raises:
        InputError: a file is there already, or a number of rows is not positive.
    """
    sizes = SIZES[files.size]
    data = GeneratedData(
        game="stg_h" if files.size == "stg_h" else "stg",
        train_rows=sizes["train"] if files.train_rows is None else files.train_rows,
        test_rows=sizes["iid"] if files.test_rows is None else files.test_rows,
        granularity=files.granularity,
        effect=files.effect,
        trace=files.trace,
    )
    counts: dict[Split, int] = {
        "train": data.train_rows,
        "iid": data.test_rows,
        "ood": data.test_rows,
    }
    paths = {split: Path(files.folder) / f"{split}.jsonl" for split in counts}
    for path in paths.values():
        if path.exists():
            raise InputError(f"{path} is there already; choose another folder or remove it")
    Path(files.folder).mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        write_jsonl(paths[split], itertools.islice(records(data, split, files.seed), count))
    return list(paths.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    prog = "python -m experiments.generate_stg"
    for path in write_files(tyro.cli(Files, prog=prog, args=arguments)):
        print(path)


if __name__ == "__main__":
    sys.exit(exit_status(main))
