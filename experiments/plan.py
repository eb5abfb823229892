"""Says before anything is rented whether a training job fits a slice of a TPU pod.

The whole train step, plain and CAT, goes through the real TPU compiler on this machine's CPU, with
the TPU kernels in it. Memory and traffic are the compiler's; times are estimates from closed forms
and published rates, never measurements (docs/plan.md).
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import tyro

from cat_jax.config import Pretrained, Training, check_positive
from cat_jax.models import Remat
from cat_jax.sharding import MeshShape
from experiments.command_line import exit_status
from experiments.planning.job import Job, Tuned, layouts
from experiments.planning.pages import as_values, fit_table, merged, page, step_table
from experiments.planning.public_models import find_model
from experiments.planning.search import Plan, make_plan
from experiments.planning.slices import Slice, compiler, devices_of, find_slice


@dataclass(frozen=True)
class Args:
    """What to plan; of several models and topologies, each with each.

    Attributes:
        model: public names, or local Hugging Face folders.
        topology: slices by their names on Google Cloud, whose number counts chips (v5e-16,
            v6e-256) or, for v5p, TensorCores, two on each chip (v5p-64 has 32 chips).
        lora: train adapters on a frozen model in bfloat16, instead of all parameters.
        length: positions of a row.
        batch_size: rows of a step over all chips; one for each chip by default.
        mesh: data, fsdp, tensor and context; all that fit are considered without it.
        accumulate: parts of a step's rows; all that divide them are considered without it.
        remat: as in ``Pretrained``.
        loss_chunk: as in ``Training``.
        tries: layouts to compile for a job before giving up.
        out: path of the results without suffix, OUT.json and OUT.md; plans of other jobs that
            are there already stay.
    """

    model: tuple[str, ...]
    topology: tuple[str, ...]
    lora: bool = False
    length: int = 4096
    batch_size: int | None = None
    mesh: tuple[int, int, int, int] | None = None
    accumulate: int | None = None
    remat: Remat = Pretrained.remat
    loss_chunk: int = Training.loss_chunk
    tries: int = 4
    out: Path | None = None


def main() -> None:
    """Plans what the command line asks for, prints and writes the tables.

    Raises:
        InputError: an unknown model or topology, no layout, or no TPU compiler.
    """
    request = tyro.cli(Args, prog="python -m experiments.plan", description=__doc__)
    check(request)
    # Nothing runs: this machine needs no accelerator, and must not look for one.
    jax.config.update("jax_platforms", "cpu")
    slices = [find_slice(name) for name in request.topology]
    asked = [(job_of(request, name, slice_), slice_) for name in request.model for slice_ in slices]
    for job, slice_ in asked:
        values = as_values(plan(request, job, slice_)) | {"compiler": compiler()}
        print(fit_table([values]) + "\n", flush=True)
        if values["fits"]:
            print(step_table([values]) + "\n", flush=True)
        if request.out is not None:
            write(request.out, values)


def check(request: Args) -> None:
    """Raises InputError for the first number that makes no sense."""
    check_positive("plan", request, "length", "loss_chunk", "tries")
    given = (n for n in ("batch_size", "accumulate") if getattr(request, n) is not None)
    check_positive("plan", request, *given)


def job_of(request: Args, name: str, slice_: Slice) -> Job:
    """The job of one model on a slice."""
    tuned: Tuned = "lora" if request.lora else "all"
    model = replace(find_model(name), attention="mosaic_tpu", remat=request.remat, dtype="bfloat16")
    rows = request.batch_size or slice_.chips
    return Job(Path(name).name, model, tuned, request.length, rows, request.loss_chunk)


def plan(request: Args, job: Job, slice_: Slice) -> Plan:
    """Compiles what is promising."""
    mesh = None if request.mesh is None else MeshShape(*request.mesh)
    candidates = layouts(job, slice_.chips, mesh, request.accumulate)
    return make_plan(job, slice_, devices_of(slice_), candidates, request.tries, say)


def say(line: str) -> None:
    """Compiling takes minutes."""
    print(line, file=sys.stderr, flush=True)


def write(out: Path, values: dict) -> None:
    """Puts a plan among those that are there."""
    path, table = (out.with_name(f"{out.name}.{kind}") for kind in ("json", "md"))
    old = json.loads(path.read_text()) if path.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    plans = merged(old, [values])
    path.write_text(json.dumps(plans, indent=1) + "\n")
    table.write_text(page(plans, EXPLANATION))


EXPLANATION = (__doc__ or "").partition("\n\n")[2]


if __name__ == "__main__":
    sys.exit(exit_status(main))
