"""Trace where spurious information travels through a model: attention knocked out, and patching.

Writes OUT.json (all means, with intervals), OUT.md (a page) and OUT.png (by layer and head).
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cat_jax.config import Dtype
from cat_jax.ranges import Count, Seed, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to trace.

    Attributes:
        model: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        task: Task whose records are traced; it says what is spurious and redraws it.
        out: Stem of the files to write; they are written over.
        split: Split of the task.
        records: Records to trace, from the first.
        seed: Seed of the records and of the twins.
        base: Base model of an adapter; None takes the one that the adapter names.
        batch_size: Sequences that are computed at a time.
        dtype: Dtype of activations.
    """

    model: Annotated[str, tyro.conf.Positional]
    task: str = "stg"
    out: str = "interventions"
    split: str = "iid"
    records: Count = 200
    seed: Seed = 0
    base: str | None = None
    batch_size: Count = 64
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Trace, print the page, and write.

    Raises:
        InputError: Bad settings, model or records.
    """
    args = parse_arguments(Args, prog="python -m experiments.interventions", description=__doc__)
    from cat_jax.tasks.registry import find_task
    from experiments.results import results_file

    task, out = find_task(args.task), Path(args.out)
    results_file(out, "json")  # refuses a name before anything is computed
    from cat_jax.analysis import save_figure
    from cat_jax.analysis.interventions import (
        paths_figure,
        paths_json,
        paths_markdown,
        trace_spurious,
    )
    from cat_jax.files import save_errors, write_text
    from cat_jax.models import load_language_model

    records = task.records(args.split, args.seed)[: args.records]
    model = load_language_model(args.model, base=args.base, dtype=args.dtype)
    paths = trace_spurious(model, task, records, seed=args.seed, batch_size=args.batch_size)
    title = f"{args.model}: {task.name}, {args.split}"
    page = paths_markdown(paths, title)
    print(page, end="")
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    values = {"settings": settings, **paths_json(paths)}
    with save_errors(lambda: "results that were there stay as they are"):
        write_text(results_file(out, "json"), json.dumps(values, indent=1) + "\n")
        save_figure(paths_figure(paths, title), results_file(out, "png"))
        write_text(results_file(out, "md"), f"{page}\n![By layer and head]({out.name}.png)\n")


if __name__ == "__main__":
    sys.exit(exit_status(main))
