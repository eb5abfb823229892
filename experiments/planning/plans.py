"""Plans of models on slices."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cat_jax.config import MeshShape, Optimizer
from experiments.planning.job import Job, layouts
from experiments.planning.options import JobOptions
from experiments.planning.public_models import find_model
from experiments.planning.search import Plan, make_plan
from experiments.planning.slices import devices_of, find_slice


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plan_jobs(
    models: Sequence[str],
    topologies: Sequence[str],
    options: JobOptions,
    *,
    say: Callable[[str], None] = _to_stderr,
) -> Iterator[Plan]:
    """Yield the plan of each model on each topology as soon as it is made, which takes minutes.

    Args:
        models: Names of public models (``PUBLIC_MODELS``), or local Hugging Face folders.
        topologies: Names of slices (``SLICES``).
        options: Training and search, the same for all.
        say: Receives lines of progress.

    Raises:
        InputError: A model or topology is unknown, an option is not positive, no layout fits the
            job, or the TPU compiler is not installed.
    """
    slices = [find_slice(name) for name in topologies]
    jobs = [(make_job(name, slice_.chips, options), slice_) for name in models for slice_ in slices]
    mesh = None if options.mesh is None else MeshShape(*options.mesh)
    for job, slice_ in jobs:
        candidates = layouts(job, slice_.chips, mesh, options.accumulate)
        yield make_plan(job, slice_, devices_of(slice_), candidates, options.tries, say)


def make_job(name: str, chips: int, options: JobOptions) -> Job:
    """Return the job of one model on so many chips, with the TPU kernels and in bfloat16.

    Raises:
        InputError: There is no such model.
    """
    found = find_model(name)
    return Job(
        name=Path(name).name,
        model=replace(found, attention="mosaic_tpu", remat=options.remat, dtype="bfloat16"),
        tuned="lora" if options.lora else "all",
        length=options.length,
        sequences=options.batch_size or chips,
        logits_mib=options.logits_mib,
        optimizer=Optimizer(name=options.optimizer, mu_dtype=options.mu_dtype),
        frozen_dtype=options.frozen_dtype or "bfloat16",
    )
