"""Fine-tune a model on your own records: prompts and answers, conversations, or texts.

With guidance (configs cat, cat_lora) attention is guided where records are annotated.
"""

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from cat_jax.collector import collector_paused
from cat_jax.config import RunConfig
from cat_jax.errors import InputError
from cat_jax.tasks.base import VALIDATION
from experiments.command_line import (
    exit_status,
    interruptible,
    output_folder,
    parse_config,
    say,
    start_up,
)

if TYPE_CHECKING:
    from etils import epath

SUMMARY_FILE = "summary.json"


def main() -> None:
    """Run the training that the command line describes."""
    config = parse_config(
        RunConfig,
        sys.argv[1:],
        program="experiments.finetune",
        default="sft",
        description=__doc__ or "",
        wrap=lambda config: config,
    )
    with interruptible(config):
        train(config)


def train(config: RunConfig) -> None:
    """Train, evaluate and write a summary; of a finished run show the summary that it left."""
    with collector_paused():  # much is imported
        console = start_up(config)
        from cat_jax.distributed import is_primary, sync_errors
        from cat_jax.evaluation import evaluate
        from cat_jax.files import save_errors, write_text
        from cat_jax.train.fit import fit, is_finished
        from cat_jax.train.training_data import some_duplicates
        from experiments.progress import progress_bar

    task = config.data
    with sync_errors():
        folder = output_folder(config)
        records = task.training_data(config.seed)
        has_validation = VALIDATION in task.splits
        validation = task.records(VALIDATION, config.seed) if has_validation else []
        # A test set that cannot be read must not end a finished run.
        tests = {split: task.records(split, config.seed) for split in task.test_splits}
        arguments: dict[str, Any] = {
            "guidance": config.guidance,
            "regularizer": config.regularizer,
            "train": config.train,
            "optimizer": config.optimizer,
            "validation": validation,
            "seed": config.seed,
            "workdir": folder,
            "provenance": {"name": config.name, "data": task},
        }
        is_summarized = config.resume and (folder / SUMMARY_FILE).exists()
        if is_summarized and is_finished(config.model, records, **arguments):
            say(console, f"{folder} is a finished run; nothing is trained or written")
            for line in summary_lines(read_summary(folder)):
                say(console, line)
            return
    for duplicates in some_duplicates(records, tests):
        say(console, f"{duplicates}")
    epochs, steps = config.train.epochs, config.train.steps
    total, unit = (steps, "step") if epochs is None else (epochs, "epoch")
    with progress_bar(console, config.name, total, unit) as show:
        run = fit(config.model, records, callbacks=[show], resume=config.resume, **arguments)
    model = folder / run.export_name
    summary = run.summary() | {"model": str(model)}
    if task.test_splits:
        summary["test"] = evaluate(run, task, seed=config.seed).scores
    if is_primary():
        with save_errors(lambda: f"the trained model is {model}"):
            write_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        for line in summary_lines(summary):
            say(console, line)


def read_summary(folder: "epath.Path") -> dict[str, Any]:
    """Return the summary of a finished run, whose folder may have been moved since.

    Raises:
        InputError: The file is damaged.
    """
    from cat_jax.files import read_json

    file, mend = folder / SUMMARY_FILE, "remove it and resume, and it is written again"
    summary = read_json(file, dict, mend)
    missing = {"steps", "seconds", "tokens_per_second", "model"} - summary.keys()
    if missing:
        raise InputError(f"{file} has no {', '.join(sorted(missing))}; {mend}")
    return summary | {"model": str(folder / str(summary["model"]).rpartition("/")[2])}


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary for a terminal."""
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    lines = [
        f"{summary['steps']} steps, {minutes}:{seconds:02d} min, "
        f"{summary['tokens_per_second']:,} tokens/s"
    ]
    if "validation" in summary:
        lines.append(
            "validation loss: "
            + ", ".join(
                f"{name} {point['next_token_loss']:.4f} (step {point['step']})"
                for name, point in summary["validation"].items()
            )
        )
    if "test" in summary:
        lines.append("test: " + ", ".join(f"{n} {x:.1%}" for n, x in summary["test"].items()))
    if "chosen" in summary:
        lines.append(summary["chosen"])
    try_it = f"python -m experiments.generate {shlex.quote(summary['model'])} --prompt TEXT"
    return [*lines, f"trained: {summary['model']}", f"try it: {try_it}"]


if __name__ == "__main__":
    sys.exit(exit_status(main))
