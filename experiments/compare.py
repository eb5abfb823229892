"""Train several methods on the same records, such as a plain baseline and CAT, and compare them."""

import json
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from cat_jax.collector import collector_paused
from cat_jax.config import RunConfig
from cat_jax.ranges import Seed
from experiments import STARTED
from experiments.command_line import (
    exit_status,
    interruptible,
    output_folder,
    parse_config,
    say,
    start_up,
)

TIMES = "times.json"
"""Seconds by phase of the newest process, beside the report, which is the same in all of them."""


@dataclass(frozen=True)
class Args:
    """A run, repeated for methods and seeds.

    Attributes:
        run: The run.
        methods: Methods to compare: baseline, cat, cat_published, and controls (docs/controls.md):
            random_spans, shuffled_causes, spurious_spans, wrong_prior, counterfactual,
            masked_spurious, causes_only, balanced, group_reweighting, named_causes,
            attention_dropout, input_gradient, untuned, few_shot, cat_annotated_10 and the like.
        seeds: Seeds; None takes the run's own.
        interventions: Edits of the first test set after which its records are asked again
            (docs/tasks.md), such as reorder.
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    methods: tuple[str, ...] = ("baseline", "cat")
    seeds: tuple[Seed, ...] | None = None
    interventions: tuple[str, ...] = ("spurious",)


def main(
    program: str = "experiments.compare", default: str = "own_data", description: str | None = None
) -> None:
    """Run the comparison that the command line describes."""
    args = parse_config(
        Args,
        sys.argv[1:],
        program=program,
        default=default,
        description=description or __doc__ or "",
        wrap=Args,
    )
    with interruptible(args.run):
        run(args)


def run(args: Args) -> None:
    """Train and evaluate all methods, and write the report."""
    config = args.run
    config.check_comparable()
    with collector_paused():  # much is imported
        console = start_up(config)
        from cat_jax.compare import compare, save_report
        from cat_jax.distributed import is_primary, sync_errors
        from cat_jax.files import save_errors, write_text
        from experiments.progress import comparison_bars
        from experiments.tables import comparison_table

    with sync_errors():
        folder = output_folder(config)
    seeds = (config.seed,) if args.seeds is None else args.seeds
    start_up_seconds = time.perf_counter() - STARTED
    with comparison_bars(console, len(args.methods) * len(seeds)) as show_run:
        comparison = compare(
            config.model,
            config.data,
            methods=args.methods,
            guidance=config.guidance,
            train=config.train,
            optimizer=config.optimizer,
            seeds=seeds,
            interventions=args.interventions,
            workdir=folder,
            resume=config.resume,
            progress=show_run,
            provenance={"name": config.name},
        )
    comparison.phases.seconds["start-up"] += start_up_seconds
    if is_primary():
        with save_errors(lambda: "the trained models are saved"):
            page = save_report(comparison, folder)
            write_text(folder / TIMES, json.dumps(comparison.phases.seconds, indent=2) + "\n")
        console.print(comparison_table(comparison))
        say(console, f"time: {comparison.phases}")
        say(console, f"report: {page}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
