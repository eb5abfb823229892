"""Slices of TPU pods by the names they are rented under, and what their chips can do.

Constants are those of Google's pages on Cloud TPU v5e, v5p and v6e (docs.cloud.google.com/tpu/docs,
"System architecture"): peak compute in bfloat16, HBM bandwidth, and interconnect bandwidth per
chip, which the pages give in both directions together. A chip has four links in a plane of chips
(v5e, v6e) and six in a cube (v5p); per link and direction that is 50, 100 and 100 GB/s.
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
    """What one chip can do.

    Attributes:
        name: of the generation.
        kind: how JAX calls it.
        hbm: bytes that a program may use, as the compiler says when it refuses one; the rest of
            the 16 GiB (v5e), 96 (v5p) or 32 (v6e) is the runtime's.
        hbm_bandwidth: bytes per second.
        link_bandwidth: bytes per second and direction of one of its links.
        cores: TensorCores, which share the work of one chip.
        clock: Hz of a core. Peak compute divided by what its matrix units do per cycle (4 of 128 x
            128 on v5e and in each core of v5p); of v6e it is not published and taken for v5p's.
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
        """Peak per second in bfloat16."""
        return PEAK_FLOPS[self.kind]


CHIPS = {
    "v5e": Chip("v5e", "TPU v5 lite", int(15.75 * GIB), 819e9, 50e9, cores=1, clock=1.50e9),
    "v5p": Chip("v5p", "TPU v5", int(95.74 * GIB), 2765e9, 100e9, cores=2, clock=1.75e9),
    "v6e": Chip("v6e", "TPU v6 lite", int(31.25 * GIB), 1600e9, 100e9, cores=1, clock=1.75e9),
}
PLANE = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
CUBE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8))


@dataclass(frozen=True)
class Slice:
    """Chips that are rented together.

    Attributes:
        name: on Google Cloud, whose number counts chips (v5e, v6e) or TensorCores (v5p).
        chip: which they are.
        grid: how they are wired.
    """

    name: str
    chip: Chip
    grid: tuple[int, ...]

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.grid)

    def __str__(self) -> str:
        return f"{self.name} ({self.chips} chips, {'x'.join(map(str, self.grid))})"


def _slices(chip: Chip, grids: tuple[tuple[int, ...], ...]) -> dict[str, Slice]:
    named = ((f"{chip.name}-{math.prod(grid) * chip.cores}", grid) for grid in grids)
    return {name: Slice(name, chip, grid) for name, grid in named}


SLICES = _slices(CHIPS["v5e"], PLANE) | _slices(CHIPS["v5p"], CUBE) | _slices(CHIPS["v6e"], PLANE)
"""The shapes that are rented as one, up to 512 chips."""


def find_slice(name: str) -> Slice:
    """The slice of that name.

    Raises:
        InputError: no such slice; those of the generation are listed.
    """
    if name in SLICES:
        return SLICES[name]
    generation = name.partition("-")[0]
    known = [other for other in SLICES if other.startswith(f"{generation}-")] or list(SLICES)
    counts = " (v5p counts TensorCores, two on each chip)" if generation == "v5p" else ""
    raise InputError(f"no topology named {name!r}: choose from {', '.join(known)}{counts}")


def compiler() -> str:
    """Which one compiles; another may give other numbers."""
    return f"libtpu {version('libtpu')} with jax {version('jax')}"


def devices_of(slice_: Slice) -> list[Any]:
    """Devices to compile for; nothing can run on them.

    Raises:
        InputError: the TPU compiler is not installed, or does not know the slice.
    """
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "the TPU compiler is not installed: pip install -e '.[compilers]'"
        ) from error
    # Read when the plugin is loaded: no metadata server is asked, and other processes may load it.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    from jax.experimental import topologies

    name = f"{slice_.chip.name}:{'x'.join(map(str, slice_.grid))}"
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
