"""Trains plainly and with causal attention tuning, side by side; reports IID and OOD accuracy."""

import json
import sys
import time

from rich.console import Console

from cat_jax.config import Experiment
from cat_jax.distributed import is_primary, sync_errors
from experiments.command_line import exit_status, parse_config, start_up
from experiments.comparison import Bench, Outcome, make_bench, methods, run_method
from experiments.figures import attention_figure, training_figure
from experiments.progress import progress_bar
from experiments.report import (
    METHOD_TITLES,
    report_json,
    report_page,
    summarize,
    terminal_table,
)
from experiments.run_folder import check_folder, write_text
from experiments.training_run import claim_folder, describe_rows


def main() -> None:
    """Runs the experiment that the command line describes."""
    config = parse_config(
        Experiment,
        sys.argv[1:],
        program="experiments.train_stg",
        default="stg_tiny",
        description=__doc__ or "",
    )
    compare(config, start_up(config))


def compare(config: Experiment, console: Console) -> None:
    """Trains and scores every method for every seed, and writes the report.

    Raises:
        InputError: bad settings, data or model; nothing is written then.
        Diverged: a loss was no longer finite.
        SaveFailed: the disk is full, or gone.
        Interrupted: a signal came; ``resume`` continues.
    """
    started = time.perf_counter()
    with sync_errors():
        folder = check_folder(config)
    outcomes: list[Outcome] = []
    notes: list[str] = []
    benches: list[Bench] = []

    def say(note: str) -> None:
        notes.append(note)
        console.print(note, markup=False, highlight=False)

    for seed in config.seeds:
        with sync_errors():
            bench = make_bench(config, seed, folder)
            chosen = methods(bench)
        benches.append(bench)
        claim_folder(folder, config)
        if seed == config.seeds[0]:
            say(f"attention: {bench.attention.implementation} ({bench.attention.reason})")
            say(f"training rows: {describe_rows(chosen[0].examples, chosen[0].coverage)}")
        for method in chosen:
            if method.guidance is not None and seed == config.seeds[0]:
                say(f"annotations for {METHOD_TITLES[method.name]}: {method.coverage}")
            title = f"{METHOD_TITLES[method.name]}, seed {seed}"
            with progress_bar(console, title, config.train.steps) as show:
                outcomes.append(run_method(bench, method, show))
            if outcomes[-1].note is not None:
                say(f"{METHOD_TITLES[method.name]}, seed {seed}: {outcomes[-1].note}")

    same_seed = [outcome for outcome in outcomes if outcome.seed == config.seeds[0]]
    attention = attention_figure(benches[0], same_seed)
    if not is_primary():
        return
    report = report_json(config, outcomes, time.perf_counter() - started)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    attention.savefig(figures / "attention.png", dpi=150)
    training_figure(folder, outcomes).savefig(figures / "training.png", dpi=150)
    write_text(folder / "report.md", report_page(config, report, notes))
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    console.print(terminal_table(summarize(outcomes)))
    console.print(f"report: {folder / 'report.md'}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(exit_status(main))
