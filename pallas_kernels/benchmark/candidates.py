"""What is measured: every implementation, with and without the mass, and stock attention."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from pallas_kernels.benchmark.attentions import WAYS, Attention, Name, attention, refusal
from pallas_kernels.benchmark.shapes import Shape
from pallas_kernels.causal_mass_attention.api import IMPLEMENTATIONS
from pallas_kernels.causal_mass_attention.stock import splash_attention
from pallas_kernels.causal_mass_attention.support import InputSpec

MAPS_LIMIT = 2**33
"""Most bytes of maps with which implementations that store them are run."""
STOCK, NO_MASS = "stock attention", ", no mass"


class Candidate(NamedTuple):
    """Function of ``attentions`` with its name.

    Attributes:
        name: Name in the report.
        run: The function.
        refusal: Why it cannot run here; None if it can.
    """

    name: str
    run: Attention
    refusal: str | None


def default_names() -> tuple[Name, ...]:
    """Return what is measured unless named: on accelerators the linear ones that are fast."""
    platform = jax.default_backend()
    if platform == "gpu":
        return (*WAYS, "mosaic_gpu")
    return ("augmented", "mosaic_tpu") if platform == "tpu" else IMPLEMENTATIONS


def candidates(shape: Shape, dtype: str, names: Sequence[Name]) -> list[Candidate]:
    """Return stock attention and what is named, those that cannot run included."""
    found = [Candidate(STOCK, _stock, _stock_refusal(shape))]
    for name in names:
        stores_maps = name == "xla" or (name == "augmented" and _stock_stores_maps())
        run = attention(name)
        for label, words in ((name, 1), (name + NO_MASS, 0)):
            if name in WAYS and not words:
                continue  # that is stock attention
            spec = InputSpec(
                dtype, shape.size, shape.length, shape.length, words, segments=shape.packed
            )
            why = refusal(name, spec) or _too_large(shape, stores_maps)
            found.append(Candidate(label, run if words else _without_bits(run), why))
    return found


def _without_bits(run: Attention) -> Attention:
    return lambda query, key, value, _q_bits, _k_bits, ids: run(query, key, value, None, None, ids)


def _stock(query, key, value, _q_bits, _k_bits, segment_ids):
    """Compute the attention that a JAX program without this package would use here."""
    platform = jax.default_backend()
    if platform == "tpu":
        return splash_attention(query, key, value, segment_ids, query.shape[-1] ** -0.5), None
    chosen = "cudnn" if platform == "gpu" else "xla"
    out = jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation=chosen)
    return out, None


def _stock_refusal(shape: Shape) -> str | None:
    if shape.packed and jax.default_backend() != "tpu":
        return "it takes no segments"
    return _too_large(shape, _stock_stores_maps())


def _stock_stores_maps() -> bool:
    return jax.default_backend() == "cpu"


def _too_large(shape: Shape, stores_maps: bool) -> str | None:
    if stores_maps and shape.map_bytes > MAPS_LIMIT:
        return f"its maps would take {shape.map_bytes / 2**30:.0f} GiB"
    return None
