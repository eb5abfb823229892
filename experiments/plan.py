"""Plan training jobs: do they fit a device, or a slice of a TPU pod, and in what time per step.

For a slice the whole train step, plain and CAT, goes through the real TPU compiler on this
machine's CPU, TPU kernels included. Memory and traffic are the compiler's; times are estimates from
closed forms and published specifications, never measurements (docs/plan.md).
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cat_jax.errors import SettingError
from cat_jax.ranges import Range, check_ranges
from experiments.command_line import exit_status, parse_arguments
from experiments.planning.options import JobOptions

Gigabytes = Annotated[float, Range(gt=0, le=10**6)]


@dataclass(frozen=True)
class Args:
    """Each model is planned on each topology and device.

    Attributes:
        model: Names of public models, or local Hugging Face folders.
        topology: Google Cloud names of slices; their number counts chips (v5e-16, v6e-256) or, for
            v5p, TensorCores, two per chip (v5p-64 has 32 chips).
        device_gb: Memory of single devices in GB, such as a GPU's 24; whether a job fits them is
            estimated in closed form.
        job: Training and search.
        out: Results of topologies, written to OUT.json and OUT.md; plans of other jobs that are
            there stay.
    """

    model: tuple[str, ...]
    topology: tuple[str, ...] = ()
    device_gb: tuple[Gigabytes, ...] = ()
    job: tyro.conf.OmitArgPrefixes[JobOptions] = field(default_factory=JobOptions)
    out: Path | None = None

    def __post_init__(self):
        check_ranges(self, "")
        if not self.topology and not self.device_gb:
            raise SettingError("topology", "must be given, or device_gb, to plan for something")
        if self.out is not None and not self.topology:
            raise SettingError("out", "takes the results of topologies, of which none is given")


def main() -> None:
    """Plan what the command line asks for; print and write the tables.

    Raises:
        InputError: Bad input, see ``plan_jobs``.
    """
    args = parse_arguments(Args, prog="python -m experiments.plan", description=__doc__)
    import jax

    from experiments.planning.pages import add_plan, as_values, fit_table, step_table
    from experiments.planning.plans import make_job, plan_jobs
    from experiments.planning.single_device import device_table
    from experiments.planning.slices import compiler

    # Nothing runs: this machine needs no accelerator, and must not look for one.
    jax.config.update("jax_platforms", "cpu")
    if args.device_gb:
        jobs = [make_job(name, 1, args.job) for name in args.model]
        print(device_table(jobs, args.device_gb) + "\n", flush=True)
    for plan in plan_jobs(args.model, args.topology, args.job):
        values = as_values(plan) | {"compiler": compiler()}
        print(fit_table([values]) + "\n", flush=True)
        if values["fits"]:
            print(step_table([values]) + "\n", flush=True)
        if args.out is not None:
            add_plan(args.out, values)


if __name__ == "__main__":
    sys.exit(exit_status(main))
