"""Which mesh a job should run on: ranked in closed form, then asked of the compiler."""

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

HOPELESS = 1.05
"""The compiler is not asked of a layout that needs more than so many times the memory in closed
form, which was from 10 percent below the compiler's peak to 14 above it, where little is needed."""
EQUAL = 1.02
"""Times within this factor are about equal: the closed form knows no better."""
METHODS = {"plain": False, "cat": True}
"""Whether the step has the second objective."""


@dataclass(frozen=True)
class Side:
    """One method's step: what the compiler says of it, and how long it may take."""

    program: Program
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """A job on a slice.

    Attributes:
        job: what is trained.
        slice_: on which chips.
        layout: how they share it; None where no layout fits.
        sides: of ``METHODS``; empty where no layout fits.
        needs: bytes per chip that the layout, or the leanest one, needs in closed form.
        refused: layouts that were compiled, and did not fit, with the compiler's words.
    """

    job: Job
    slice_: Slice
    layout: Layout | None
    sides: dict[str, Side]
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
    """The fastest layout by estimate among those that the compiler accepts.

    Candidates are compiled in the order of their estimated time, the first that fits is taken.

    Raises:
        InputError: as many as ``tries`` were compiled, and none of them fits.
    """
    leanest = min(memory(job, layout) for layout in candidates)
    refused: dict[str, str] = {}
    for layout in ranked(job, slice_, candidates):
        if len(refused) == tries:
            raise InputError(
                f"{job.name} on {slice_}: {tries} layouts were compiled and none fits "
                f"({'; '.join(refused)}); give --mesh, or more --tries"
            )
        say(f"{job.name} on {slice_}: compiling {layout}")
        sides = _sides(job, slice_, layout, devices)
        if isinstance(sides, Refused):
            refused[str(layout)] = sides.reason
            say(f"does not fit: {sides.reason}")
            continue
        return Plan(job, slice_, layout, sides, memory(job, layout), refused)
    return Plan(job, slice_, None, {}, leanest, refused)


def ranked(job: Job, slice_: Slice, candidates: list[Layout]) -> list[Layout]:
    """Those worth compiling, the fastest first; of about equally fast ones the leanest."""

    def cost(layout: Layout) -> tuple[float, ...]:
        seconds = expected_seconds(job, layout, slice_)
        return *(round(math.log(s, EQUAL)) for s in seconds), memory(job, layout)

    limit = HOPELESS * slice_.chip.hbm
    return sorted((one for one in candidates if memory(job, one) <= limit), key=cost)


def _sides(
    job: Job, slice_: Slice, layout: Layout, devices: Sequence[Any]
) -> dict[str, Side] | Refused:
    """Both methods, the larger first."""
    sides = {}
    for method in ("cat", "plain"):
        mass = METHODS[method]
        program = compile_step(job, layout, devices, mass)
        if isinstance(program, Refused):
            return program
        if program.peak > slice_.chip.hbm:
            return Refused(f"{program.peak / GIB:.2f} GiB at the peak")
        received = sum(program.received.values())
        sides[method] = Side(program, estimate(job, layout, slice_, mass, received))
    return sides
