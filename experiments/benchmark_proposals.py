"""Compare ways to rank causes on models of the Spurious Token Game, where the truth is known.

Train the models with ``python -m experiments.train_stg --seeds 0 1 2``; give the folders of its
runs, RUNS/seed-SEED/METHOD.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.command_line import exit_status, parse_arguments

WAYS = ("replacement", "removal", "gradient", "attention")


@dataclass(frozen=True)
class Args:
    """What to compare.

    Attributes:
        runs: Folder of a comparison, which has the runs of each seed and method.
        out: Stem of the files to write, OUT.json and OUT.md.
        records: Records out of distribution to rank the numbers of.
        samples: Draws for each number.
    """

    runs: Annotated[str, tyro.conf.Positional]
    out: Annotated[str, tyro.conf.Positional]
    records: Count = 200
    samples: Count = 8

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Compare and write.

    Raises:
        InputError: There are no runs.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_proposals", description=__doc__
    )
    from cat_jax.files import write_text

    folders = sorted(Path(args.runs).glob("seed-*/*/"))
    if not folders:
        raise InputError(f"{args.runs} has no folders seed-SEED/METHOD; give that of a comparison")
    found: dict[str, dict[str, list[float]]] = {}
    for folder in folders:
        for way, share in measure(folder, args).items():
            found.setdefault(folder.name, {}).setdefault(way, []).append(share)
    values = {"records": args.records, "samples": args.samples, "causes_ranked_first": found}
    write_text(f"{args.out}.json", json.dumps(values, indent=1) + "\n")
    text = table(found)
    write_text(f"{args.out}.md", text)
    print(text, end="")


def measure(folder: Path, args: Args) -> dict[str, float]:
    """Return how many of the first proposals are causes, by each way, for a model."""
    from cat_jax.analysis.proposals import causes_ranked_first, propose_causes
    from cat_jax.data.records import Record
    from cat_jax.models import load_language_model
    from cat_jax.tasks import stg

    task = stg(test_records=args.records)
    records = [record for record in task.records("ood") if isinstance(record, Record)]
    model = load_language_model(folder)
    return {
        way: causes_ranked_first(
            records, propose_causes(model, records, by=way, samples=args.samples)
        )
        for way in WAYS
    }


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return a table in Markdown, mean and standard deviation over seeds."""
    lines = ["| ranked by | " + " | ".join(found) + " |", "| --- |" + " --- |" * len(found)]
    for way in WAYS:
        cells = [
            f"{fmean(x[way]):.1%}" + (f" ± {stdev(x[way]):.1%}" if len(x[way]) > 1 else "")
            for x in found.values()
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
