"""Trace where spurious information travels through a model: attention knocked out, and patching.

The settings of the task are options of its name (--stg.trace, --scm.causes 4). Writes OUT.json (all
means, with intervals), OUT.md (a page) and, but with --detail whole, OUT.png (by layer and head).
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cat_jax.config import Dtype
from cat_jax.ranges import Count, Seed, check_ranges
from cat_jax.tasks import Task, find_task
from experiments.command_line import exit_status
from experiments.task_options import option_values, parse_with_tasks


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
        detail: Each of six knock-outs takes 2 + layers + layers x heads passes with "heads", 2 +
            layers with "layers", 2 with "whole"; pretrained models have hundreds of heads.
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
    detail: Literal["whole", "layers", "heads"] = "heads"
    batch_size: Count = 64
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_ranges(self, "")


def parse(arguments: Sequence[str]) -> tuple[Args, Task]:
    """Parse the command line; the settings of the task are known once ``--task`` is read."""
    name = (option_values(arguments, "--task") or [Args.task])[-1]
    tasks = {name: find_task(name)}
    args, tasks = parse_with_tasks(
        Args, tasks, arguments, prog="python -m experiments.interventions", description=__doc__
    )
    return args, tasks[name]


def main() -> None:
    """Trace, print the page, and write.

    Raises:
        InputError: Bad settings, model or records.
    """
    args, task = parse(sys.argv[1:])
    out = Path(args.out)
    from experiments.results import results_file

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
    from cat_jax.train.workdir import json_settings

    records = task.records(args.split, args.seed)[: args.records]
    model = load_language_model(args.model, base=args.base, dtype=args.dtype)
    paths = trace_spurious(
        model, task, records, seed=args.seed, detail=args.detail, batch_size=args.batch_size
    )
    title = f"{args.model}: {task.name}, {args.split}"
    page = paths_markdown(paths, title)
    print(page, end="")
    kept = {x.name: getattr(args, x.name) for x in fields(Args) if x.name != "out"}
    settings = json_settings(**kept | {"task": task})
    values = {"settings": settings, **paths_json(paths)}
    with save_errors(lambda: "results that were there stay as they are"):
        write_text(results_file(out, "json"), json.dumps(values, indent=1) + "\n")
        if args.detail != "whole":
            save_figure(paths_figure(paths, title), results_file(out, "png"))
            page += f"\n![By layer and head]({out.name}.png)\n"
        write_text(results_file(out, "md"), page)


if __name__ == "__main__":
    sys.exit(exit_status(main))
