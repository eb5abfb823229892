"""Compare ways to rank causes on models of the Spurious Token Game, where the truth is known.

Train the models with ``python -m experiments.train_stg --seeds 0 1 2``; give the folders of its
runs, RUNS/seed-SEED/METHOD.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.benchmarking.game_runs import RunsArgs, ood_records, run_folders
from experiments.command_line import exit_status, parse_arguments

WAYS = ("replacement", "removal", "gradient", "attention", "random")

Scores = dict[str, dict[str, list[float]]]
"""Scores of a method's models by way and name, one for each seed."""


def main() -> None:
    """Compare and write.

    Raises:
        InputError: There are no runs.
    """
    args = parse_arguments(
        RunsArgs, prog="python -m experiments.benchmark_proposals", description=__doc__
    )
    from cat_jax.files import write_text

    found: dict[str, Scores] = {}
    for method, folder in run_folders(args.runs):
        for way, scores in measure(folder, args).items():
            for name, score in scores.items():
                by_way = found.setdefault(method, {}).setdefault(way, {})
                by_way.setdefault(name, []).append(score)
    values = {"records": args.records, "samples": args.samples, "seed": args.seed, "scores": found}
    write_text(f"{args.out}.json", json.dumps(values, indent=1) + "\n")
    text = table(found)
    write_text(f"{args.out}.md", text)
    print(text, end="")


def measure(folder: Path, args: RunsArgs) -> dict[str, dict[str, float]]:
    """Return by each way how a model ranks the causes, and how it ranks the spurious factors."""
    from cat_jax.analysis.proposals import causes_auroc, causes_ranked_first, propose_causes
    from cat_jax.data.records import Annotation, Span
    from cat_jax.models import load_language_model

    task, records = ood_records(args)
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
