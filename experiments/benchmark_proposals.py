"""Compare ways to rank causes on models of the Spurious Token Game, where the truth is known.

Train the models with ``python -m experiments.train_stg --seeds 0 1 2``; give the folders of its
runs, RUNS/seed-SEED/METHOD.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, Seed, check_ranges
from experiments.command_line import exit_status, parse_arguments

WAYS = ("replacement", "removal", "gradient", "attention", "random")

Scores = dict[str, dict[str, list[float]]]
"""Scores of a method's models by way and name, one for each seed."""


@dataclass(frozen=True)
class Args:
    """What to compare.

    Attributes:
        runs: Folder of a comparison, which has the runs of each seed and method.
        out: Stem of the files to write, OUT.json and OUT.md.
        records: Records out of distribution to rank the numbers of.
        samples: Draws for each number.
        seed: Seed of the records and of chance.
    """

    runs: Annotated[str, tyro.conf.Positional]
    out: Annotated[str, tyro.conf.Positional]
    records: Count = 200
    samples: Count = 8
    seed: Seed = 0

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
    found: dict[str, Scores] = {}
    for folder in folders:
        for way, scores in measure(folder, args).items():
            for name, score in scores.items():
                by_way = found.setdefault(folder.name, {}).setdefault(way, {})
                by_way.setdefault(name, []).append(score)
    values = {"records": args.records, "samples": args.samples, "seed": args.seed, "scores": found}
    write_text(f"{args.out}.json", json.dumps(values, indent=1) + "\n")
    text = table(found)
    write_text(f"{args.out}.md", text)
    print(text, end="")


def measure(folder: Path, args: Args) -> dict[str, dict[str, float]]:
    """Return by each way how a model ranks the causes, and how it ranks the spurious factors."""
    from cat_jax.analysis.proposals import causes_auroc, causes_ranked_first, propose_causes
    from cat_jax.data.records import Annotation, Record, Span
    from cat_jax.models import load_language_model
    from cat_jax.tasks import stg

    task = stg(test_records=args.records)
    records = [x for x in task.records("ood", args.seed) if isinstance(x, Record)]
    spurious = [
        replace(x, important=(Annotation(Span(x.target, len(x.input)), tuple(spans)),))
        for x in records
        if (spans := task.spurious_spans(x))
    ]
    model = load_language_model(folder)
    scores = {}
    for way in WAYS:
        ranked = (
            shuffled(records, args.seed)
            if way == "random"
            else propose_causes(model, records, by=way, samples=args.samples)
        )
        scores[way] = {
            "causes_first": causes_ranked_first(records, ranked),
            "causes_auroc": causes_auroc(records, ranked),
            "spurious_first": causes_ranked_first(spurious, ranked),
            "spurious_auroc": causes_auroc(spurious, ranked),
        }
    return scores


def shuffled(records: Sequence[Any], seed: int) -> list[list[Any]]:
    """Return the numbers of each record in random order, for chance."""
    import numpy as np

    from cat_jax.analysis.proposals import Proposal, number_spans

    rng = np.random.default_rng(seed)
    drawn = ([Proposal(x, rng.random(), "random") for x in number_spans(r)] for r in records)
    return [sorted(proposals, key=lambda x: -x.effect) for proposals in drawn]


def table(found: dict[str, Scores]) -> str:
    """Return a table in Markdown, mean and standard deviation over seeds."""
    columns = [
        (method, kind, f"{method}: {kind}") for method in found for kind in ("causes", "spurious")
    ]
    heads = " | ".join(head for *_, head in columns)
    lines = [f"| ranked by | {heads} |", "| --- |" + " --- |" * len(columns)]
    for way in WAYS:
        cells = []
        for method, kind, _ in columns:
            first, auroc = (found[method][way][f"{kind}_{name}"] for name in ("first", "auroc"))
            spread = f" ± {stdev(first):.1%}" if len(first) > 1 else ""
            cells.append(f"{fmean(first):.1%}{spread}, {fmean(auroc):.2f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
