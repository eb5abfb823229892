"""Write the records of a task as JSONL, for training elsewhere or for reading."""

import json
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import tyro

from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.files import write_text
from cat_jax.ranges import Seed, check_number
from cat_jax.tasks import Task
from cat_jax.tasks.registry import TASKS, find_task
from cat_jax.tasks.summary import describe_task
from experiments.command_line import exit_status, parse_arguments

USAGE = f"""usage: python -m experiments.generate_data TASK FOLDER [--seed N] [--data.setting ...]

Write each split of a task as FOLDER/SPLIT.jsonl, and FOLDER/task.json with its settings, causal
graph and the scores of its reference rules. No file is written over.

TASK is one of {", ".join(TASKS)}; TASK --help shows its settings."""


def parse(arguments: Sequence[str]) -> Any:
    """Parse the task, then the folder, the seed and the task's own settings."""
    name, *rest = arguments
    task = find_task(name)
    fields = [
        ("folder", tyro.conf.Positional[str]),
        ("data", type(task), task),
        ("seed", Seed, 0),
    ]
    args = make_dataclass("Args", fields)
    args.__doc__ = f"Write the records of {name} to a folder."
    parsed = parse_arguments(args, prog=f"python -m experiments.generate_data {name}", args=rest)
    check_number("seed", parsed.seed, Seed)
    return parsed


def write_files(task: Task, folder: Path, seed: int) -> list[Path]:
    """Write a file for each split, each whole or not at all.

    Raises:
        InputError: A file is there already, or the task has no records to give.
    """
    paths = {split: folder / f"{split}.jsonl" for split in task.splits}
    about = folder / "task.json"
    for path in (*paths.values(), about):
        if path.exists():
            raise InputError(f"{path} is there already; choose another folder or remove it")
    summary = json.dumps(describe_task(task, seed), indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    for split, path in paths.items():
        write_records(path, task.iter_records(split, seed))
    write_text(about, summary + "\n")
    return [*paths.values(), about]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    args = parse(arguments)
    for path in write_files(args.data, Path(args.folder), args.seed):
        print(path)


if __name__ == "__main__":
    sys.exit(exit_status(main))
