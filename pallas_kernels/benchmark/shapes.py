"""The shapes, and random inputs for them."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

Annotation = Literal["dense", "sparse"]
Layout = Literal["whole", "packed"]

LENGTHS = (4096, 8192, 2048, 32_768)
CPU_LENGTHS = (256, 1024)
HEADS = ((32, 8), (12, 2))
SIZES = (128, 64)
ANNOTATIONS: tuple[Annotation, ...] = ("dense", "sparse")
CUTS = (0.07, 0.2, 0.31, 0.48, 0.62, 0.79, 0.9)
"""Where packed records end, as shares of the sequence."""


@dataclass(frozen=True)
class Shape:
    """T positions, with H query and G key/value heads of size C.

    ``dense`` annotates every second key for every query. ``sparse`` is a record with one answer:
    its last 16 positions depend on eight spans of four tokens. ``packed`` sequences hold eight
    records of different lengths, which are segments.
    """

    length: int
    heads: int
    groups: int
    size: int
    annotation: Annotation
    layout: Layout = "whole"

    def __str__(self):
        packed = ", packed" if self.packed else ""
        return (
            f"T {self.length}, {self.heads}/{self.groups} x {self.size}, {self.annotation}{packed}"
        )

    @property
    def packed(self) -> bool:
        """Whether there are segments."""
        return self.layout == "packed"

    @property
    def ends(self) -> tuple[int, ...]:
        """Where the records end."""
        cuts = tuple(round(cut * self.length) for cut in CUTS) if self.packed else ()
        return (*cuts, self.length)

    @property
    def forward_flops(self) -> float:
        """Operations of two matrix products over visible pairs; the backward has five."""
        squares = sum(size**2 for size in np.diff(self.ends, prepend=0).tolist())
        return 2.0 * squares * self.size * self.heads

    @property
    def map_bytes(self) -> int:
        """Bytes of all attention maps in float32."""
        return 4 * self.heads * self.length**2


@dataclass(frozen=True)
class Case:
    """Arrays in host memory, float32, uint32 and int32: inputs of an attention, and cotangents."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    q_bits: np.ndarray
    k_bits: np.ndarray
    segment_ids: np.ndarray | None
    d_out: np.ndarray
    d_mass: np.ndarray


def make_case(shape: Shape, seed: int = 0) -> Case:
    """Return a random batch of one sequence."""
    sizes = shape.length, shape.heads, shape.groups, shape.size
    query, key, value, d_out, d_mass = _floats(*sizes, seed)
    ids = np.searchsorted(shape.ends, np.arange(shape.length), "right").astype(np.int32)[None]
    bits = _bits(shape, np.random.default_rng(seed))
    return Case(query, key, value, *bits, ids if shape.packed else None, d_out, d_mass)


@functools.lru_cache(maxsize=1)
def _floats(length: int, heads: int, groups: int, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return what does not depend on annotation and segments: most of the time of a case."""
    rng = np.random.default_rng(seed)
    q_shape, k_shape = (1, length, heads, size), (1, length, groups, size)
    shapes = q_shape, k_shape, k_shape, q_shape, (1, heads, length)
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def _bits(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    q_bits, k_bits = np.zeros((2, 1, shape.length, 1), np.uint32)
    if shape.annotation == "dense":
        q_bits[:], k_bits[:, ::2] = 1, 1
        return q_bits, k_bits
    for start, end in zip((0, *shape.ends), shape.ends, strict=False):
        q_bits[:, max(start, end - 16) : end] = 1
        for first in rng.integers(start, max(start + 1, end - 20), 8):
            k_bits[:, first : first + 4] = 1
    return q_bits, k_bits
