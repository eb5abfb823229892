"""Slices of TPU pods by their Google Cloud names, and the specifications of their chips.

Source: Google's pages on Cloud TPU v5e, v5p and v6e (docs.cloud.google.com/tpu/docs, "System
architecture"): peak compute in bfloat16, HBM bandwidth, and interconnect bandwidth per chip, which
the pages give for both directions together. A chip has four links in a 2D torus (v5e, v6e) and six
in a 3D torus (v5p); per link and direction that is 50 (v5e), 100 (v5p) and 100 GB/s (v6e).
"""

import math
import os
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from cat_jax.errors import InputError
from cat_jax.train.throughput import PEAK_FLOPS

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Specifications of one chip.

    Attributes:
        name: Name of the generation.
        kind: JAX's ``device_kind``.
        hbm: HBM that a program may use, in bytes, as the compiler states it when it refuses a
            program; the rest of the 16 GiB (v5e), 96 (v5p) or 32 (v6e) belongs to the runtime.
        hbm_bandwidth: HBM bandwidth in bytes per second.
        link_bandwidth: Bandwidth of one link in one direction, in bytes per second.
        cores: TensorCores.
        clock: Clock of a core in Hz: peak compute divided by the operations per cycle of its
            matrix units (4 of 128 x 128 on v5e and in each core of v5p). That of v6e is not
            published; v5p's is assumed.
    """

    name: str
    kind: str
    hbm: int
    hbm_bandwidth: float
    link_bandwidth: float
    cores: int
    clock: float

    @property
    def flops(self) -> float:
        """Peak FLOP/s in bfloat16."""
        return PEAK_FLOPS[self.kind]


CHIPS = {
    "v5e": Chip("v5e", "TPU v5 lite", int(15.75 * GIB), 819e9, 50e9, cores=1, clock=1.50e9),
    "v5p": Chip("v5p", "TPU v5", int(95.74 * GIB), 2765e9, 100e9, cores=2, clock=1.75e9),
    "v6e": Chip("v6e", "TPU v6 lite", int(31.25 * GIB), 1600e9, 100e9, cores=1, clock=1.75e9),
}
GRIDS_2D = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
GRIDS_3D = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8))


@dataclass(frozen=True)
class Slice:
    """Chips that are rented as one.

    Attributes:
        name: Name on Google Cloud, whose number counts chips (v5e, v6e) or TensorCores (v5p).
        chip: Type of the chips.
        grid: Chips along each axis of the torus.
    """

    name: str
    chip: Chip
    grid: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.grid)

    def __str__(self) -> str:
        return f"{self.name} ({self.chips} chips, {'x'.join(map(str, self.grid))})"


def _slices(chip: Chip, grids: tuple[tuple[int, ...], ...]) -> dict[str, Slice]:
    named = ((f"{chip.name}-{math.prod(grid) * chip.cores}", grid) for grid in grids)
    return {name: Slice(name, chip, grid) for name, grid in named}


SLICES = (
    _slices(CHIPS["v5e"], GRIDS_2D)
    | _slices(CHIPS["v5p"], GRIDS_3D)
    | _slices(CHIPS["v6e"], GRIDS_2D)
)
"""Slices by name, up to 512 chips."""


def find_slice(name: str) -> Slice:
    """Return the slice of that name.

    Raises:
        InputError: There is no such slice; the message lists those of the generation.
    """
    if name in SLICES:
        return SLICES[name]
    generation = name.partition("-")[0]
    known = [other for other in SLICES if other.startswith(f"{generation}-")] or list(SLICES)
    counts = " (v5p counts TensorCores, two on each chip)" if generation == "v5p" else ""
    raise InputError(f"no topology named {name!r}: choose from {', '.join(known)}{counts}")


def compiler() -> str:
    """Return the versions of the TPU compiler and of jax, on which the numbers depend."""
    return f"libtpu {version('libtpu')} with jax {version('jax')}"


def devices_of(slice_: Slice) -> list[Any]:
    """Return devices to compile for; nothing can run on them.

    Raises:
        InputError: The TPU compiler is not installed.
    """
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "the TPU compiler is not installed: pip install -e '.[compilers]'"
        ) from error
    # Read when the plugin is loaded. They keep it from asking the metadata server of a TPU machine,
    # and allow other processes to load it at the same time.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    from jax.experimental import topologies

    name = f"{slice_.chip.name}:{'x'.join(map(str, slice_.grid))}"
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
