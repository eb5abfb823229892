"""Search for the mesh a job should run on: ranked in closed form, then tried on the compiler."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cat_jax.errors import InputError
from experiments.planning.costs import memory
from experiments.planning.estimate import Estimate, estimate, expected_seconds
from experiments.planning.job import Job, Layout
from experiments.planning.program import Program, Refused, compile_step
from experiments.planning.slices import GIB, Slice

MEMORY_SLACK = 1.05
"""Largest share of a chip's HBM that a layout may need in closed form to be compiled. The closed
form was between 10 percent below the compiler's peak and, where little is needed, 13 above it."""
TIE = 1.02
"""Times within about this factor are equal: the closed form is no more accurate."""
METHODS = {"plain": False, "cat": True}
"""Whether each method's step reads the causal mass."""


@dataclass(frozen=True)
class StepPlan:
    """The compiled step of one method, and its estimated time."""

    program: Program
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """A job on a slice.

    Attributes:
        job: Training step.
        slice_: Chips.
        layout: Fastest layout that fits; None where none does.
        steps: Step of each of ``METHODS``; empty where no layout fits.
        needs: Bytes per chip in closed form, of the layout or else of the one that needs least.
        refused: Layouts that were compiled and did not fit, with the compiler's messages.
    """

    job: Job
    slice_: Slice
    layout: Layout | None
    steps: dict[str, StepPlan]
    needs: float
    refused: dict[str, str]


def make_plan(
    job: Job,
    slice_: Slice,
    devices: Sequence[Any],
    candidates: list[Layout],
    tries: int,
    say: Callable[[str], None],
) -> Plan:
    """Return the plan with the fastest layout, by estimate, that the compiler accepts.

    Args:
        job: Training step.
        slice_: Chips to plan for.
        devices: Their devices, of ``devices_of``.
        candidates: Layouts to choose from; they are compiled in the order of ``ranked``.
        tries: Layouts to compile before giving up.
        say: Receives a line of progress before and after each compilation.

    Raises:
        InputError: ``tries`` layouts were compiled and none of them fits.
    """
    least = min(memory(job, layout) for layout in candidates)
    refused: dict[str, str] = {}
    for layout in ranked(job, slice_, candidates):
        if len(refused) == tries:
            raise InputError(
                f"{job.name} on {slice_}: {tries} layouts were compiled and none fits "
                f"({'; '.join(refused)}); give --mesh, or more --tries"
            )
        say(f"{job.name} on {slice_}: compiling {layout}")
        steps = _compile_methods(job, slice_, layout, devices)
        if isinstance(steps, Refused):
            refused[str(layout)] = steps.reason
            say(f"does not fit: {steps.reason}")
            continue
        return Plan(job, slice_, layout, steps, memory(job, layout), refused)
    return Plan(job, slice_, None, {}, least, refused)


def ranked(job: Job, slice_: Slice, candidates: list[Layout]) -> list[Layout]:
    """Return the layouts worth compiling, fastest first, ties broken by memory."""

    def cost(layout: Layout) -> tuple[float, ...]:
        seconds = expected_seconds(job, layout, slice_)
        return *(round(math.log(s, TIE)) for s in seconds), memory(job, layout)

    limit = MEMORY_SLACK * slice_.chip.hbm
    return sorted((one for one in candidates if memory(job, one) <= limit), key=cost)


def _compile_methods(
    job: Job, slice_: Slice, layout: Layout, devices: Sequence[Any]
) -> dict[str, StepPlan] | Refused:
    """Compile the steps of both methods, that of CAT first, which needs more memory."""
    steps = {}
    for method in ("cat", "plain"):
        mass = METHODS[method]
        program = compile_step(job, layout, devices, mass)
        if isinstance(program, Refused):
            return program
        if program.peak > slice_.chip.hbm:
            return Refused(f"{program.peak / GIB:.2f} GiB at the peak")
        received = sum(program.received.values())
        steps[method] = StepPlan(program, estimate(job, layout, slice_, mass, received))
    return steps
