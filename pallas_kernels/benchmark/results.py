"""What is measured of one candidate on one shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from pallas_kernels.benchmark.measure import Timing
from pallas_kernels.benchmark.shapes import Shape


@dataclass(frozen=True)
class Result:
    """One candidate on one shape; without a refusal everything is measured.

    Attributes:
        candidate: Name.
        shape: Shape of the inputs.
        refusal: Why it cannot run; None if it can.
        forward: Time of the forward.
        both: Time of forward and backward together.
        temporary_bytes: Bytes that forward and backward need beside their arrays; None for torch.
        resident_bytes: By how much they raise the memory of the process, on a CPU.
        errors: Relative errors of out, mass (if computed) and query gradient.
    """

    candidate: str
    shape: Shape
    refusal: str | None = None
    forward: Timing | None = None
    both: Timing | None = None
    temporary_bytes: int | None = None
    resident_bytes: int | None = None
    errors: Mapping[str, float] | None = None
