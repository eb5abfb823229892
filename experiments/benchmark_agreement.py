"""Measure how far explanations of models of the Spurious Token Game agree with each other.

Train the models with ``python -m experiments.train_stg --seeds 0 1 2``; give the folders of its
runs, RUNS/seed-SEED/METHOD.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cat_jax.ranges import Count
from experiments.benchmarking.game_runs import RunsArgs, ood_records, run_folders
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args(RunsArgs):
    """What to measure.

    Attributes:
        top: Numbers of a record that count as the largest.
    """

    top: Count = 3


def main() -> None:
    """Measure and write.

    Raises:
        InputError: There are no runs.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_agreement", description=__doc__
    )
    from cat_jax.files import write_text

    of_method: dict[str, list[list[Any]]] = {}
    for method, folder in run_folders(args.runs):
        of_method.setdefault(method, []).append(measure(folder, args))
    scores = {method: pooled(seeds) for method, seeds in of_method.items()}
    values = {name: value for name, value in asdict(args).items() if name not in ("runs", "out")}
    write_text(f"{args.out}.json", json.dumps(values | {"scores": scores}, indent=1) + "\n")
    text = table(scores, args.top)
    write_text(f"{args.out}.md", text)
    print(text, end="")


def measure(folder: Path, args: Args) -> list[Any]:
    """Return the agreements of a model's explanations."""
    from cat_jax.analysis.proposals import explanation_agreement
    from cat_jax.models import load_language_model

    _, records = ood_records(args)
    return explanation_agreement(
        load_language_model(folder),
        records,
        top=args.top,
        samples=args.samples,
        seed=args.seed,
    )


def pooled(seeds: list[list[Any]]) -> list[dict[str, Any]]:
    """Return for each two ways the means over seeds and records, with their intervals."""
    import numpy as np

    from cat_jax.evaluation.statistics import mean_score

    rows = []
    for found in zip(*seeds, strict=True):
        tau_SR, overlap_SR = (np.stack([getattr(x, n) for x in found]) for n in ("tau", "overlap"))
        kept_SR, known_SR = (x[:, np.isfinite(x).all(0)] for x in (tau_SR, overlap_SR))
        rows.append(
            {
                "ways": [found[0].first, found[0].second],
                "tau": list(mean_score(list(kept_SR), crossed=True)),
                "overlap": list(mean_score(list(known_SR), crossed=True)),
                "chance": float(np.nanmean(found[0].chance)),
            }
        )
    return rows


def table(scores: dict[str, list[dict[str, Any]]], top: int) -> str:
    """Return a table in Markdown, means and 95 % intervals."""
    from cat_jax.markdown import markdown_table

    columns = ["ways"]
    columns += [f"{x}: {y}" for x in scores for y in ("Kendall's tau", f"overlap of {top}")]
    columns.append("overlap by chance")
    rows = []
    for of_pair in zip(*scores.values(), strict=True):
        cells = [", ".join(of_pair[0]["ways"])]
        for row in of_pair:
            for name in ("tau", "overlap"):
                value, low, high, _ = row[name]
                cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
        rows.append([*cells, f"{of_pair[0]['chance']:.2f}"])
    align = ["left", *["right"] * (len(columns) - 1)]
    return markdown_table(columns, rows, align) + "\n"  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    sys.exit(exit_status(main))
