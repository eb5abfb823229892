"""Trains plainly and with causal attention tuning, side by side; reports IID and OOD accuracy."""

import json
import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cat_jax.config import Experiment
from experiments.command_line import exit_status, parse_experiment
from experiments.comparison import Bench, Outcome, make_bench, methods, run_method
from experiments.figures import attention_figure, training_figure
from experiments.report import (
    METHOD_TITLES,
    report_json,
    report_page,
    summarize,
    terminal_table,
)
from experiments.run_folder import check_folder, create_folder, write_text


def main() -> None:
    """Runs the experiment that the command line describes."""
    compare(
        parse_experiment(sys.argv[1:], default="stg_tiny", description=__doc__ or ""), Console()
    )


def compare(config: Experiment, console: Console) -> None:
    """Trains and scores every method for every seed, and writes the report.

    Raises:
        InputError: bad settings, data or model; nothing is written then.
        Diverged: a loss was no longer finite.
        SaveFailed: the disk is full, or gone.
        Interrupted: a signal came; ``resume`` continues.
    """
    started = time.perf_counter()
    folder = check_folder(config)
    outcomes: list[Outcome] = []
    notes: list[str] = []
    benches: list[Bench] = []

    def say(note: str) -> None:
        notes.append(note)
        console.print(note, markup=False, highlight=False)

    for seed in config.seeds:
        bench = make_bench(config, seed, folder)
        benches.append(bench)
        chosen = methods(bench)
        create_folder(folder, config)
        if seed == config.seeds[0]:
            say(f"attention: {bench.attention.implementation} ({bench.attention.reason})")
            say(f"training rows: {chosen[0].rows}")
        for method in chosen:
            if method.guidance is not None and seed == config.seeds[0]:
                say(f"annotations for {METHOD_TITLES[method.name]}: {method.coverage}")
            with progress_bar(console) as bar:
                task = bar.add_task(
                    f"{METHOD_TITLES[method.name]}, seed {seed}", total=config.train.steps, loss="-"
                )

                def show(step: int, values: Mapping[str, float], bar=bar, task=task) -> None:
                    bar.update(task, completed=step, loss=f"{values['loss']:.3f}")

                outcomes.append(run_method(bench, method, show))
            if outcomes[-1].note is not None:
                say(f"{METHOD_TITLES[method.name]}, seed {seed}: {outcomes[-1].note}")

    report = report_json(config, outcomes, time.perf_counter() - started)
    same_seed = [outcome for outcome in outcomes if outcome.seed == config.seeds[0]]
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    attention_figure(benches[0], same_seed).savefig(figures / "attention.png", dpi=150)
    training_figure(folder, outcomes).savefig(figures / "training.png", dpi=150)
    write_text(folder / "report.md", report_page(config, report, notes))
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    console.print(terminal_table(summarize(outcomes)))
    console.print(f"report: {folder / 'report.md'}", markup=False, highlight=False)


def progress_bar(console: Console) -> Progress:
    """One line: what runs, how far it is, its loss, and the time it still needs."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
