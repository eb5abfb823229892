"""Plan training jobs on slices of TPU pods: do they fit, on which mesh, and in what time per step.

The whole train step, plain and CAT, goes through the real TPU compiler on this machine's CPU, TPU
kernels included. Memory and traffic are the compiler's; times are estimates from closed forms and
published specifications, never measurements (docs/plan.md).
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from experiments.command_line import exit_status, parse_arguments
from experiments.planning.options import JobOptions


@dataclass(frozen=True)
class Args:
    """Each model is planned on each topology.

    Attributes:
        model: Names of public models, or local Hugging Face folders.
        topology: Google Cloud names of slices; their number counts chips (v5e-16, v6e-256) or, for
            v5p, TensorCores, two per chip (v5p-64 has 32 chips).
        job: Training and search.
        out: Results, written to OUT.json and OUT.md; plans of other jobs that are there stay.
    """

    model: tuple[str, ...]
    topology: tuple[str, ...]
    job: tyro.conf.OmitArgPrefixes[JobOptions] = field(default_factory=JobOptions)
    out: Path | None = None


def main() -> None:
    """Plan what the command line asks for; print and write the tables.

    Raises:
        InputError: Bad input, see ``plan_jobs``.
    """
    args = parse_arguments(Args, prog="python -m experiments.plan", description=__doc__)
    import jax

    from experiments.planning.pages import add_plan, as_values, fit_table, step_table
    from experiments.planning.plans import plan_jobs
    from experiments.planning.slices import compiler

    # Nothing runs: this machine needs no accelerator, and must not look for one.
    jax.config.update("jax_platforms", "cpu")
    for plan in plan_jobs(args.model, args.topology, args.job):
        values = as_values(plan) | {"compiler": compiler()}
        print(fit_table([values]) + "\n", flush=True)
        if values["fits"]:
            print(step_table([values]) + "\n", flush=True)
        if args.out is not None:
            add_plan(args.out, values)


if __name__ == "__main__":
    sys.exit(exit_status(main))
