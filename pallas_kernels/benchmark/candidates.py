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
"""Most bytes of maps with which implementations that store them are run."""
STOCK = "stock attention"


class Candidate(NamedTuple):
    """Function (query, key, value, q_bits, k_bits) -> (out, mass or None) with its name.

    Attributes:
        name: Name in the report.
        run: The function.
        refusal: Why it cannot run here; None if it can.
    """

    name: str
    run: Callable[..., tuple[Array, Array | None]]
    refusal: str | None


def candidates(shape: Shape, dtype: str) -> list[Candidate]:
    """Return all candidates for one shape, those that cannot run included."""
    found = [Candidate(STOCK, _stock, _too_large(shape, _stock_stores_maps()))]
    for name in IMPLEMENTATIONS:
        stores_maps = name == "xla" or (name == "augmented" and _stock_stores_maps())
        for label, words in ((name, 1), (f"{name}, no mass", 0)):
            refusal = unsupported_reason(
                name, dtype, head_dim=shape.size, length=shape.length, words=words, segments=False
            )
            run = _implementation(name, with_mass=words > 0)
            found.append(Candidate(label, run, refusal or _too_large(shape, stores_maps)))
    return found


def _implementation(name: Implementation, with_mass: bool):
    def run(query, key, value, q_bits, k_bits):
        bits = (q_bits, k_bits) if with_mass else (None, None)
        return causal_mass_attention(query, key, value, *bits, implementation=name)

    return run


def _stock(query, key, value, q_bits, k_bits):
    """Compute the attention that a JAX program without this package would use here."""
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
