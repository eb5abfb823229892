"""How near the kernel of this machine comes to what it should reach."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pallas_kernels.benchmark.candidates import NO_MASS, STOCK
from pallas_kernels.benchmark.results import Result
from pallas_kernels.benchmark.shapes import Annotation

Phase = Literal["forward", "both"]
PHASES: Mapping[Phase, str] = {"forward": "forward", "both": "forward and backward"}
KERNELS = ("mosaic_gpu", "mosaic_tpu")


@dataclass(frozen=True)
class Target:
    """Least ratio of speeds, the kernel with the mass over another.

    Attributes:
        size: Head size.
        annotation: Annotation; None for any.
        against: What it is compared with.
        least: Least ratio.
        length: Shortest length for which it holds.
    """

    size: int
    annotation: Annotation | None
    against: Literal["itself without the mass", "stock attention"]
    least: float
    length: int = 0


TARGETS = (
    Target(128, "dense", "itself without the mass", 0.97),
    Target(128, "sparse", "itself without the mass", 0.99),
    Target(128, None, "stock attention", 0.90, 4096),
    Target(64, "dense", "itself without the mass", 0.88),
    Target(64, "sparse", "itself without the mass", 0.97),
    Target(64, None, "stock attention", 0.82),
)
"""Forward alone, and forward and backward together, in bfloat16 on one GPU."""


@dataclass(frozen=True)
class Distance:
    """A target and what was measured.

    Attributes:
        kernel: The kernel.
        shape: The shape.
        phase: Forward, or forward and backward.
        target: What it should reach.
        ratio: What it reaches.
    """

    kernel: str
    shape: str
    phase: Phase
    target: Target
    ratio: float


def distances(results: Iterable[Result]) -> list[Distance]:
    """Return the distance to every target that the results tell of."""
    measured = {(r.candidate, r.shape): r for r in results if r.refusal is None}
    found = []
    for (name, shape), own in measured.items():
        if name not in KERNELS:
            continue
        for target in TARGETS:
            fits = target.size == shape.size and target.length <= shape.length
            if not fits or target.annotation not in (None, shape.annotation):
                continue
            with_stock = target.against == "stock attention"
            other = measured.get((STOCK if with_stock else name + NO_MASS, shape))
            if other is not None:
                found += [
                    Distance(name, str(shape), phase, target, ratio(other, own, phase))
                    for phase in PHASES
                ]
    return found


def ratio(other: Result, own: Result, phase: Phase) -> float:
    """Return the speed of a result over that of another, by median times."""
    (other_time, own_time) = (getattr(result, phase).median for result in (other, own))
    return other_time / own_time


def targets_table(found: Sequence[Distance]) -> str:
    """Return the distances as a Markdown table."""
    lines = ["| | | speed over that of | target | measured | distance |", "|" + " --- |" * 6]
    for x in found:
        missing = x.ratio - x.target.least
        verdict = "reached" if missing >= 0 else f"{missing:.2f}"
        lines.append(
            f"| {x.shape} | {PHASES[x.phase]} | {x.target.against} | {x.target.least:.2f} | "
            f"{x.ratio:.2f} | {verdict} |"
        )
    return "\n".join(lines)
