"""What is measured: every implementation, with and without the mass, and stock attention."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array

from pallas_kernels.benchmark.shapes import Shape
from pallas_kernels.causal_mass_attention.api import IMPLEMENTATIONS, causal_mass_attention
from pallas_kernels.causal_mass_attention.augmented import splash_attention
from pallas_kernels.causal_mass_attention.selection import Implementation, unsupported_reason

MAPS_LIMIT = 2**33
"""Bytes of maps up to which implementations that store them are run."""
STOCK = "stock attention"


class Candidate(NamedTuple):
    """(query, key, value, q_bits, k_bits) -> (out, mass or None), and why it cannot run here."""

    name: str
    run: Callable[..., tuple[Array, Array | None]]
    refusal: str | None


def candidates(shape: Shape, dtype: str) -> list[Candidate]:
    """All of them for one shape; ``refusal`` is None for those that can run."""
    found = [Candidate(STOCK, _stock, _too_large(shape, _stock_stores_maps()))]
    for name in IMPLEMENTATIONS:
        stores_maps = name == "xla" or (name == "augmented" and _stock_stores_maps())
        refusal = unsupported_reason(name, dtype) or _too_large(shape, stores_maps)
        found.append(Candidate(name, _implementation(name, with_mass=True), refusal))
        found.append(Candidate(f"{name}, no mass", _implementation(name, with_mass=False), refusal))
    return found


def _implementation(name: Implementation, with_mass: bool):
    def run(query, key, value, q_bits, k_bits):
        bits = (q_bits, k_bits) if with_mass else (None, None)
        return causal_mass_attention(query, key, value, *bits, implementation=name)

    return run


def _stock(query, key, value, q_bits, k_bits):
    """The attention that a JAX program without this package would call here."""
    platform = jax.default_backend()
    if platform == "tpu":
        return splash_attention(query, key, value, None, query.shape[-1] ** -0.5), None
    chosen = "cudnn" if platform == "gpu" else "xla"
    out = jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation=chosen)
    return out, None


def _stock_stores_maps() -> bool:
    return jax.default_backend() == "cpu"


def _too_large(shape: Shape, stores_maps: bool) -> str | None:
    if stores_maps and shape.map_bytes > MAPS_LIMIT:
        return f"its maps would take {shape.map_bytes / 2**30:.0f} GiB"
    return None
