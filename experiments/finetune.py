"""Fine-tunes a model on your own data: prompts and answers, conversations, or texts.

With guidance (configs cat, cat_lora) annotated rows guide attention besides.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from cat_jax.config import Finetune, OwnData
from cat_jax.data.alignment import AlignmentStats
from cat_jax.data.conversations import TrainingRecord, read_rows
from cat_jax.data.packing import pack_examples
from cat_jax.distributed import is_primary, sync_errors
from cat_jax.errors import InputError
from cat_jax.evaluation import make_validation
from cat_jax.train.evaluations import verdict
from cat_jax.train.metrics import read_metrics
from experiments.command_line import exit_status, parse_config, start_up
from experiments.handover import export_model
from experiments.progress import progress_bar
from experiments.run_folder import check_folder, write_text
from experiments.training_run import (
    Start,
    align,
    align_training,
    check_best,
    claim_folder,
    describe_rows,
    make_start,
    run_training,
)

MEASURED = ("next_token_loss", "token_accuracy", "perplexity", "causal_mass", "guidance_loss")
"""What may be measured on validation rows; the last two on annotated ones alone."""

Say = Callable[[str], None]


def main() -> None:
    """Runs the training that the command line describes."""
    config = parse_config(
        Finetune,
        sys.argv[1:],
        program="experiments.finetune",
        default="sft",
        description=__doc__ or "",
    )
    finetune(config, start_up(config))


def finetune(config: Finetune, console: Console) -> None:
    """Trains, validates, and leaves a model (or adapter) and a summary in the output folder.

    Raises:
        InputError: bad settings, data or model; nothing is written then.
        Diverged: a loss was no longer finite.
        Interrupted: a signal came; ``resume`` continues.
    """

    def say(note: str) -> None:
        console.print(note, markup=False, highlight=False, soft_wrap=True)

    started = time.perf_counter()
    with sync_errors():
        folder = check_folder(config)
        training, held_out = batch_sharding(config.data, config.seed)
        start = make_start(config, training, config.seed)
        guided = config.guidance is not None
        examples, coverage = align_training(
            training, start.tokenizer, config.train, config.seed, guided=guided
        )
        say(f"attention: {start.attention.implementation} ({start.attention.reason})")
        say(f"training rows: {describe_rows(examples, coverage)}; {too_long(coverage)}")
        if guided:
            say(f"annotations: {coverage}")
        check_best(config.train.best, MEASURED if held_out else ())
        validate = make_validate(config, start, held_out, say)
    claim_folder(folder, config)
    with progress_bar(console, config.name, config.train.steps) as report:
        state = run_training(
            config, start, examples, config.guidance, config.seed, folder, validate, report
        )
    left = export_model(folder, config.model, start.model.config, start.tokenizer, state.params)
    if not is_primary():
        return
    lines = list(read_metrics(folder / "metrics.jsonl"))
    summary = summarize(lines, time.perf_counter() - started) | {"left": str(left)}
    chosen = verdict(lines, config.train)
    if chosen is not None:
        summary["chosen"] = chosen
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    for line in summary_lines(summary):
        say(line)


def batch_sharding(data: OwnData, seed: int) -> tuple[list[TrainingRecord], list[TrainingRecord]]:
    """Training and validation rows; the latter from their own file, or drawn, or none.

    Raises:
        InputError: a file cannot be read, or the share leaves no row on one side.
    """
    rows = read_rows(data.train)
    if data.validation is not None:
        return rows, read_rows(data.validation)
    count = round(data.validation_share * len(rows))
    if data.validation_share and not 0 < count < len(rows):
        raise InputError(
            f"data.validation_share {data.validation_share} of {len(rows)} rows sets {count} of "
            "them aside; choose another share, or name a file with data.validation"
        )
    drawn = set(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
    return (
        [row for number, row in enumerate(rows) if number not in drawn],
        [row for number, row in enumerate(rows) if number in drawn],
    )


def make_validate(
    config: Finetune, start: Start, rows: Sequence[TrainingRecord], say: Say
) -> Callable[[Any], dict[str, float]]:
    """What to measure on the validation rows; nothing if there are none.

    Raises:
        InputError: no validation row is short enough.
    """
    if not rows:
        return lambda params: {}
    loop = config.train
    examples, coverage = align(rows, start.tokenizer, loop)
    if not examples:
        raise InputError(
            f"none of {len(rows)} validation rows fits in {loop.max_length} tokens; raise "
            "train.max_length"
        )
    if loop.pack:
        examples = pack_examples(examples, length=loop.max_length, seed=config.seed)
    say(f"validation rows: {describe_rows(examples, coverage)}; {too_long(coverage)}")
    return make_validation(
        start.model,
        examples,
        start.mesh,
        config.guidance,
        batch_size=loop.batch_size,
        loss_chunk=loop.loss_chunk,
    )


def too_long(coverage: AlignmentStats) -> str:
    """What was left out."""
    return f"{coverage.too_long} left out as too long"


def summarize(lines: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What became of the run: from its metrics, so that a resumed run counts as a whole."""
    train = [line for line in lines if line["kind"] == "train"]
    summary: dict[str, Any] = {
        "steps": lines[-1]["step"],
        "seconds": round(seconds, 1),
        "tokens_per_second": round(median(line["tokens_per_second"] for line in train)),
    }
    names = ("step", "next_token_loss", "token_accuracy", "perplexity", "causal_mass")
    points = [
        {name: line[name] for name in names if name in line}
        for line in lines
        if line["kind"] == "eval"
    ]
    if points:
        summary["validation"] = {
            "best": min(points, key=lambda point: point["next_token_loss"]),
            "last": points[-1],
        }
    return summary


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary for a terminal."""
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    lines = [
        f"{summary['steps']} steps, {minutes}:{seconds:02d} min, "
        f"{summary['tokens_per_second']:,} tokens/s"
    ]
    if "validation" in summary:
        best, last = summary["validation"]["best"], summary["validation"]["last"]
        lines.append(
            f"validation loss: best {best['next_token_loss']:.4f} (step {best['step']}), last "
            f"{last['next_token_loss']:.4f} (step {last['step']}), token accuracy "
            f"{last['token_accuracy']:.1%}"
        )
    if "chosen" in summary:
        lines.append(summary["chosen"])
    return [*lines, f"trained: {summary['left']}"]


if __name__ == "__main__":
    sys.exit(exit_status(main))
