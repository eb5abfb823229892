"""Evaluate models on tasks: answers, scores with intervals, interventions, tests between models."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from cat_jax.config import Dtype
from cat_jax.errors import InputError
from cat_jax.ranges import Seed, check_number
from cat_jax.tasks import Task, files
from cat_jax.tasks.registry import TASKS, find_task
from experiments.command_line import exit_status
from experiments.task_options import option_values, parse_with_tasks

USAGE = f"""usage: python -m experiments.evaluate [NAME=]MODEL ... --tasks TASK,TASK --out FOLDER

Evaluate models on tasks. MODEL is a run, a Hugging Face folder, an adapter, or a hub name. Models
of the same NAME are seeds of one method, whose scores are averaged; every other NAME is tested
against the first on the same records. Written to FOLDER: report.md, report.json, figures, and every
answer in answers/TASK/NAME.jsonl.

TASK is one of {", ".join(TASKS)}, or files, your own (--files.iid A.jsonl
--files.test-files B.jsonl C.jsonl); its settings are options of its name
(--stg.test-records 200, --mawps.folder DATA). MODEL --tasks TASK --help shows them all."""


@dataclass(frozen=True)
class Args:
    """Evaluate models on tasks.

    Attributes:
        models: [NAME=]MODEL: a run, a Hugging Face folder, an adapter, or a hub name.
        tasks: Tasks, separated by commas.
        out: Folder to write to.
        base: Base model of adapters; None takes the one that each names.
        interventions: Edits of the first test set to answer too (docs/tasks.md).
        forced_choice: Measure too how often the right answer is the most likely one.
        reference_rules: Score the task's reference rules too; they read its training records.
        text_loss: Measure the loss on texts that come with Python: what was forgotten.
        seed: Seed of generated test records and of interventions.
        batch_size: Prompts that are decoded at a time.
        dtype: Dtype of activations.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    tasks: str
    out: str = "runs/evaluation"
    base: str | None = None
    interventions: tuple[str, ...] = ("spurious",)
    forced_choice: bool = False
    reference_rules: bool = True
    text_loss: bool = False
    seed: Seed = 0
    batch_size: int = 64
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_number("seed", self.seed, Seed)


EVALUATED: dict[str, Task] = {**TASKS, "files": files()}
"""Tasks by name; ``files`` are your own test files."""


def parse(arguments: Sequence[str]) -> tuple[Args, dict[str, Task]]:
    """Parse the command line; options of tasks are known once ``--tasks`` is read."""
    given = ",".join(option_values(arguments, "--tasks"))
    names = dict.fromkeys(filter(None, given.split(",")))
    if not names:
        raise InputError(f"--tasks names no task; give some of {', '.join(EVALUATED)}")
    tasks = {name: find_task(name, EVALUATED) for name in names}
    return parse_with_tasks(Args, tasks, arguments, prog="python -m experiments.evaluate")


def named_models(models: Sequence[str]) -> dict[str, list[str]]:
    """Return the models by name; without NAME= a model is named after its folder.

    Raises:
        InputError: There is no model, or two are named alike without saying that they are seeds.
    """
    if not models:
        raise InputError("name at least one model: a run, a folder, an adapter, or a hub name")
    found: dict[str, list[str]] = {}
    for model in models:
        name, equals, path = model.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]+", name):
            name, path = re.sub(r"[^\w.-]", "_", model.rstrip("/").rpartition("/")[2]), model
            if name in found:
                raise InputError(
                    f"two models are named {name!r}; write NAME={model} to name it otherwise, or "
                    "the same NAME= before both if they are seeds of one method"
                )
        found.setdefault(name, []).append(path)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or (
        {"-h", "--help"} & set(arguments) and not any("--tasks" in x for x in arguments)
    ):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    args, tasks = parse(arguments)
    evaluate_models(args, tasks, named_models(args.models))


def evaluate_models(args: Args, tasks: dict[str, Task], models: dict[str, list[str]]) -> None:
    """Evaluate each model on each task, one in memory at a time, and write the report."""
    from rich.console import Console

    from cat_jax.compare.evaluations import save_evaluations
    from cat_jax.evaluation import Evaluation, TextLoss, evaluate, python_texts, text_loss
    from cat_jax.files import check_writable, save_errors
    from cat_jax.models import load_language_model
    from cat_jax.train.workdir import json_settings
    from experiments.command_line import say

    console = Console()
    check_writable(args.out, "out")
    for path in (path for paths in models.values() for path in paths):
        check_tasks(path, args, tasks)
    texts = python_texts() if args.text_loss else None
    found: dict[str, dict[str, list[Evaluation]]] = {name: {} for name in tasks}
    losses: dict[str, list[TextLoss]] = {}
    for method, paths in models.items():
        for path in paths:
            model = load_language_model(path, base=args.base, dtype=args.dtype)
            if texts is not None:
                losses.setdefault(method, []).append(text_loss(model, texts))
                say(console, f"{method}: {texts.name}: {losses[method][-1]}")
            for name, task in tasks.items():
                evaluation = evaluate(
                    model,
                    task,
                    seed=args.seed,
                    interventions=args.interventions,
                    forced_choice=args.forced_choice,
                    reference_rules=args.reference_rules,
                    batch_size=args.batch_size,
                )
                found[name].setdefault(method, []).append(evaluation)
                say(console, f"{method}: {evaluation}")
    settings = json_settings(
        models=models,
        tasks=tasks,
        seed=args.seed,
        interventions=args.interventions,
        dtype=args.dtype,
    )
    with save_errors(lambda: "nothing else was lost"):
        page = save_evaluations(found, args.out, settings, losses=losses, texts=texts)
    say(console, f"report: {page}")


def check_tasks(path: str, args: Args, tasks: dict[str, Task]) -> None:
    """Make all test sets with a model's tokenizer, before any model answers for hours.

    Raises:
        InputError: A model is not there, or cannot be asked what a task asks.
    """
    from cat_jax.evaluation.testsets import make_interventions, make_test_sets
    from cat_jax.models.huggingface.config import config_from_hf, read_config
    from cat_jax.models.huggingface.located import locate
    from cat_jax.models.tokenizer import load_tokenizer

    located = locate(path, args.base)
    config = config_from_hf(read_config(located.model))
    tokenizer = load_tokenizer(str(located.companions), config.vocab_size)
    for task in tasks.values():
        tests = make_test_sets(task, tokenizer, seed=args.seed, max_length=config.max_positions)
        make_interventions(task, tests, tokenizer, seed=args.seed, names=args.interventions)


if __name__ == "__main__":
    sys.exit(exit_status(main))
