"""The shapes, and random inputs for them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Annotation = Literal["dense", "sparse"]

LENGTHS = (256, 1024, 4096, 8192, 32_768, 131_072)
HEADS = ((32, 8), (12, 2))
SIZES = (64, 128)
ANNOTATIONS: tuple[Annotation, ...] = ("dense", "sparse")


@dataclass(frozen=True)
class Shape:
    """T positions, with H query and G key/value heads of size C.

    ``dense`` annotates every second key for every query. ``sparse`` is a record with one answer:
    the last 16 positions depend on eight spans of four tokens.
    """

    length: int
    heads: int
    groups: int
    size: int
    annotation: Annotation

    def __str__(self):
        return f"T {self.length}, {self.heads}/{self.groups} x {self.size}, {self.annotation}"

    @property
    def forward_flops(self) -> float:
        """Operations of two matrix products over the lower triangle; the backward has five."""
        return 2.0 * self.length**2 * self.size * self.heads

    @property
    def map_bytes(self) -> int:
        """Bytes of all attention maps in float32."""
        return 4 * self.heads * self.length**2


@dataclass(frozen=True)
class Case:
    """Arrays in host memory, float32 and uint32: inputs of an implementation, and cotangents."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    q_bits: np.ndarray
    k_bits: np.ndarray
    d_out: np.ndarray
    d_mass: np.ndarray


def make_case(shape: Shape, seed: int = 0) -> Case:
    """Return a random batch of one sequence."""
    rng = np.random.default_rng(seed)
    q_shape = (1, shape.length, shape.heads, shape.size)
    k_shape = (1, shape.length, shape.groups, shape.size)
    query, key, value, d_out = (
        rng.standard_normal(s, np.float32) for s in (q_shape, k_shape, k_shape, q_shape)
    )
    d_mass = rng.standard_normal((1, shape.heads, shape.length), np.float32)
    return Case(query, key, value, *_bits(shape, rng), d_out, d_mass)


def _bits(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    q_bits, k_bits = np.zeros((2, 1, shape.length, 1), np.uint32)
    if shape.annotation == "dense":
        q_bits[:], k_bits[:, ::2] = 1, 1
    else:
        q_bits[:, -16:] = 1
        for start in rng.integers(0, shape.length - 20, 8):
            k_bits[:, start : start + 4] = 1
    return q_bits, k_bits
