"""Fine-tune a model on your own records: prompts and answers, conversations, or texts.

With guidance (configs cat, cat_lora) attention is guided where records are annotated.
"""

import json
import sys
from typing import Any

from cat_jax.config import RunConfig
from cat_jax.tasks.base import TRAIN, VALIDATION
from experiments.command_line import exit_status, output_folder, parse_config, say, start_up


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
    console = start_up(config)
    from cat_jax.distributed import is_primary, sync_errors
    from cat_jax.evaluation import evaluate
    from cat_jax.files import write_text
    from cat_jax.train.fit import fit
    from experiments.progress import progress_bar

    task = config.data
    with sync_errors():
        folder = output_folder(config)
        records = task.records(TRAIN, config.seed)
        has_validation = VALIDATION in task.splits
        validation = task.records(VALIDATION, config.seed) if has_validation else []
        for split in task.test_splits:  # one that cannot be read must not end a finished run
            task.records(split, config.seed)
    with progress_bar(console, config.name, config.train.steps) as show:
        run = fit(
            config.model,
            records,
            guidance=config.guidance,
            train=config.train,
            optimizer=config.optimizer,
            validation=validation,
            seed=config.seed,
            callbacks=[show],
            workdir=folder,
            resume=config.resume,
            provenance={"name": config.name, "data": task},
        )
    summary = run.summary() | {"model": str(folder / run.export_name)}
    if task.test_splits:
        summary["test"] = evaluate(run, task, seed=config.seed).scores
    if is_primary():
        write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        for line in summary_lines(summary):
            say(console, line)


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
    return [*lines, f"trained: {summary['model']}"]


if __name__ == "__main__":
    sys.exit(exit_status(main))
