"""Interventions inside a forward pass: edited attention scores, activations put in place of others.

Both travel as Flax variable collections beside the parameters, scanned over the layers:

``model.apply({"params": params} | attention_edits(gate_NH, q_bits, k_bits), tokens)``

What is not given costs nothing: the program of a model without these collections is the same.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cat_jax.errors import InputError
from cat_jax.types import Array, Bool, Float, UInt32
from pallas_kernels import annotated_pairs

ATTENTION_EDITS = "attention_edits"
"""Collection of edits of attention scores, from ``attention_edits``."""
PATCHES = "patches"
"""Collection of activations to put in place, from ``activation_patches``."""
OFFSETS = "offsets"
"""Collection of what is added to activations, of the names and shapes of ``ACTIVATIONS``: the
gradient by an offset of zero is that by the activations."""
ACTIVATIONS = "activations"
"""Collection of the tap: make it mutable in ``apply`` to receive the activations that can be
patched, as they are after it: "residual" [N, B, T, D] below "layers", the output of each layer, and
"heads" [N, B, T, H, C] below its "attention", what each head leaves to the output projection."""


class Patch(NamedTuple):
    """Activations of one kind to put in place.

    Attributes:
        where: Where to put them, bool; [N, B, T], or [N, B, T, H] of heads. An axis may be 1 long.
        value: All activations of the other forward pass, [N, B, T, D] or [N, B, T, H, C].
    """

    where: Bool[Array, "N B T *H"]
    value: Float[Array, "N B T *rest"]


def attention_edits(
    gate_NH: Float[Array, "N H"], q_bits: UInt32[Array, "B T W"], k_bits: UInt32[Array, "B T W"]
) -> dict[str, Any]:
    """Return the collection that adds a bias to the scores of marked edges.

    Marked are the edges from key j to query i where M[i, j] = any(q_bits[i] & k_bits[j]), as in
    ``cat_jax.data.bitset``; those that are not causal, or between segments, stay out of reach.
    Their scores, scaled and before the softmax, gain what the gate says for layer and head:

    - 0 changes nothing;
    - -inf knocks the edges out (attention knockout, Geva et al. 2023, arXiv 2304.14767). A query of
      which all keys are knocked out attends to nothing: its row of the map, its mass and its output
      of this head are zero;
    - log(a) multiplies the probabilities by a before they are scaled to sum to 1 again, which is
      how PASTA steers (Zhang et al. 2023, arXiv 2311.02262, eq. 2).

    A finite gate is differentiable. Maps and mass are those of the edited attention. A model with
    edits computes full maps with XLA in O(T^2) memory, whatever ``config.attention`` says, because
    no kernel takes a bias; decoding with a cache (``extend``) refuses them.

    Args:
        gate_NH: What is added, by layer and head.
        q_bits: Bits of the queries.
        k_bits: Bits of the keys.

    Raises:
        InputError: The gate is no [N, H], or holds NaN or +inf (of one that is traced the values
            are not looked at).
    """
    if gate_NH.ndim != 2:
        raise InputError(f"the gate is one number by layer and head, [N, H], got {gate_NH.shape}")
    if not isinstance(gate_NH, Tracer) and not (np.asarray(gate_NH) < np.inf).all():
        raise InputError("the gate holds NaN or +inf; give finite numbers, or -inf to knock out")
    bits = (jnp.broadcast_to(x, (len(gate_NH), *x.shape)) for x in (q_bits, k_bits))
    names = ("gate", "q_bits", "k_bits")
    edits = dict(zip(names, (jnp.asarray(gate_NH, jnp.float32), *bits), strict=True))
    return {ATTENTION_EDITS: {"layers": {"attention": edits}}}


def activation_patches(
    *, residual: Patch | None = None, heads: Patch | None = None
) -> dict[str, Any]:
    """Return the collection that replaces activations (activation patching).

    Source: Vig et al. 2020 (arXiv 2004.12265); Meng et al. 2022 (arXiv 2202.05262).

    Args:
        residual: Output of layers: the residual stream after each.
        heads: Output of attention heads, before the output projection.
    """
    layers: dict[str, Any] = {}
    if residual is not None:
        layers["residual"] = _whole(residual, 3)
    if heads is not None:
        layers["attention"] = {"heads": _whole(heads, 4)}
    return {PATCHES: {"layers": layers}}


def _whole(patch: Patch, axes: int) -> dict[str, Array]:
    where, value = patch
    if where.ndim != axes or value.ndim != axes + 1:
        raise InputError(
            f"a patch of this kind has {axes} axes of where to put it and {axes + 1} of values, "
            f"got {where.shape} and {value.shape}"
        )
    return {"where": jnp.broadcast_to(where, value.shape[:-1]), "value": value}


def score_bias(module: nn.Module) -> Float[Array, "B H T T"] | None:
    """Return what an attention module is to add to its scores; None without edits."""
    if not module.has_variable(ATTENTION_EDITS, "gate"):
        return None
    gate_H, q_bits_BTW, k_bits_BTW = (
        module.get_variable(ATTENTION_EDITS, name) for name in ("gate", "q_bits", "k_bits")
    )
    marked_BQK = annotated_pairs(q_bits_BTW, k_bits_BTW)
    return jnp.where(marked_BQK[:, None], gate_H[None, :, None, None], 0.0)


def patched(module: nn.Module, name: str, x: Array) -> Array:
    """Return a module's activations as patches and offsets leave them; the tap gets the same."""
    if module.has_variable(PATCHES, name):
        patch = module.get_variable(PATCHES, name)
        x = jnp.where(patch["where"][..., None], patch["value"].astype(x.dtype), x)
    if module.has_variable(OFFSETS, name):
        x = x + module.get_variable(OFFSETS, name).astype(x.dtype)
    if module.is_mutable_collection(ACTIVATIONS):
        module.put_variable(ACTIVATIONS, name, x)
    return x


def check_no_interventions(variables: Mapping[str, Any]) -> None:
    """Refuse interventions where they would be without effect.

    Raises:
        InputError: There are some.
    """
    given = [name for name in (ATTENTION_EDITS, PATCHES, OFFSETS) if name in variables]
    if given:
        raise InputError(
            f"decoding with a cache takes no {', '.join(given)}; run the whole sequence instead "
            "(cat_jax.evaluation.steered_answers decodes so)"
        )


class Activations(NamedTuple):
    """What the tap received.

    Attributes:
        residual_NBTD: Output of each layer.
        heads_NBTHC: Output of each attention head, before the output projection.
    """

    residual_NBTD: Float[Array, "N B T D"]
    heads_NBTHC: Float[Array, "N B T H C"]


def read_activations(model: nn.Module, params: Any, tokens_BT: Array, **inputs: Any) -> Activations:
    """Run the layers of a ``CausalLM`` and return the activations that can be patched.

    Args:
        model: The model.
        params: Its parameters.
        tokens_BT: Token ids.
        **inputs: What else ``hidden_states`` takes.
    """
    output = model.apply(
        {"params": params}, tokens_BT, **inputs, method="hidden_states", mutable=[ACTIVATIONS]
    )
    _, taps = cast("tuple[Any, Any]", output)
    layers = taps[ACTIVATIONS]["layers"]
    return Activations(layers["residual"], layers["attention"]["heads"])
