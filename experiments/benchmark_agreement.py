"""Measure how far explanations of models of the Spurious Token Game agree with each other.

Train the models with ``python -m experiments.train_stg --seeds 0 1 2``; give the folders of its
runs, RUNS/seed-SEED/METHOD.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, Seed, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to measure.

    Attributes:
        runs: Folder of a comparison, which has the runs of each seed and method.
        out: Stem of the files to write, OUT.json and OUT.md.
        records: Records out of distribution to rank the numbers of.
        samples: Draws for each number.
        top: Numbers of a record that count as the largest.
        seed: Seed of the records and of the draws.
    """

    runs: Annotated[str, tyro.conf.Positional]
    out: Annotated[str, tyro.conf.Positional]
    records: Count = 200
    samples: Count = 8
    top: Count = 3
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Measure and write.

    Raises:
        InputError: There are no runs.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_agreement", description=__doc__
    )
    from cat_jax.files import write_text

    folders = sorted(Path(args.runs).glob("seed-*/*/"))
    if not folders:
        raise InputError(f"{args.runs} has no folders seed-SEED/METHOD; give that of a comparison")
    of_method: dict[str, list[list[Any]]] = {}
    for folder in folders:
        of_method.setdefault(folder.name, []).append(measure(folder, args))
    scores = {method: pooled(seeds) for method, seeds in of_method.items()}
    values = {name: value for name, value in asdict(args).items() if name not in ("runs", "out")}
    write_text(f"{args.out}.json", json.dumps(values | {"scores": scores}, indent=1) + "\n")
    text = table(scores, args.top)
    write_text(f"{args.out}.md", text)
    print(text, end="")


def measure(folder: Path, args: Args) -> list[Any]:
    """Return the agreements of a model's explanations."""
    from cat_jax.analysis.proposals import explanation_agreement
    from cat_jax.data.records import Record
    from cat_jax.models import load_language_model
    from cat_jax.tasks import stg

    task = stg(test_records=args.records)
    records = [x for x in task.records("ood", args.seed) if isinstance(x, Record)]
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
