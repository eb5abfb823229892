"""Evaluate a model on tasks of EleutherAI's lm-evaluation-harness (extra lm-eval)."""

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from cat_jax.config import Dtype
from cat_jax.errors import InputError
from cat_jax.files import check_writable, one_line, save_errors, write_text
from cat_jax.ranges import Count, Range, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to evaluate.

    Attributes:
        model: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        tasks: Names of tasks and groups of the harness, apart by commas or spaces; * stands for any
            characters.
        out: JSON file for the results.
        include_path: Folder with task files (YAML) of your own.
        limit: Only so many first questions of each task; for trying.
        num_fewshot: Solved examples before each question; None leaves it to the tasks.
        base: Base model of an adapter; None takes the one that the adapter names.
        chat: Ask in the model's chat template.
        template_options: Variables of the chat template (enable_thinking=false), and the date that
            it prints (date=2026-01-31): those of training.
        batch_size: Most questions that are computed at a time.
        max_length: Longest input in tokens, cut off on the left; None is all that the model reads.
        log_samples: Write each question and what the model answered, too.
        dtype: Dtype of activations.
    """

    model: Annotated[str, tyro.conf.Positional]
    tasks: tuple[str, ...]
    out: Path
    include_path: Path | None = None
    limit: Count | None = None
    num_fewshot: Annotated[int, Range(ge=0)] | None = None
    base: str | None = None
    chat: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: Count = 64
    max_length: Count | None = None
    log_samples: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Print the harness's table and write its results.

    Raises:
        InputError: Bad settings, no such model or task, or a task whose data cannot be read.
    """
    args = parse_arguments(Args, prog="python -m experiments.lm_eval", description=__doc__)
    if args.template_options and not args.chat:
        raise InputError("--template-options are of a chat template: add --chat")
    check_writable(args.out.absolute().parent, "out")
    if args.include_path is not None and not args.include_path.is_dir():
        raise InputError(f"--include-path is {args.include_path}, which is no folder")
    from cat_jax.evaluation.harness import harness_model, import_harness
    from cat_jax.models import load_language_model

    lm_eval = import_harness()
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
        handle_non_serializable,
        make_table,
    )

    manager = TaskManager(include_path=args.include_path and str(args.include_path))
    tasks = find_tasks(args.tasks, manager)
    model = harness_model(
        load_language_model(args.model, base=args.base, dtype=args.dtype),
        batch_size=args.batch_size,
        max_length=args.max_length,
        template_options=args.template_options,
    )
    try:
        results: Any = lm_eval.simple_evaluate(
            model,
            tasks=tasks,
            task_manager=manager,
            limit=args.limit,
            num_fewshot=args.num_fewshot,
            apply_chat_template=args.chat,
            log_samples=args.log_samples,
        )
    except OSError as error:  # no network, no such data set or file
        raise InputError(
            f"the data of the tasks cannot be read ({one_line(error)}); check the network, or the "
            "files that the tasks name"
        ) from error
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))
    text = json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)
    with save_errors(lambda: "the table above is all that is left"):
        write_text(args.out, text + "\n")


def find_tasks(asked: Sequence[str], manager: Any) -> list[str]:
    """Return the names of tasks that are asked for, patterns among them.

    Raises:
        InputError: No task has such a name.
    """
    names = [name for words in asked for name in words.split(",") if name]
    if not names:
        raise InputError("--tasks names no task: give at least one")
    for name in names:
        if not manager.match_tasks([name]):
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = f"did you mean {near[0]}?" if near else "python -m lm_eval ls tasks lists them"
            raise InputError(f"no task of the harness is named {name!r}; {hint}")
    return sorted(set(manager.match_tasks(names)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
