"""The interface of a kernel, and the one rule that differentiates them all.

A kernel computes attention and its gradient in the public layouts; how it cuts, pads and
transposes them is its own business. Query i is at position K - Q + i of the keys.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Float32, Int32, UInt32

RESIDUAL_NAMES = ("causal_mass_out", "causal_mass_mass", "causal_mass_lse")
"""For ``jax.checkpoint_policies.save_only_these_names``: saved, no forward runs twice."""


class Inputs(NamedTuple):
    """What a kernel reads, as the public function takes it."""

    query: Float[Array, "B Q H C"]
    key: Float[Array, "B K G C"]
    value: Float[Array, "B K G C"]
    q_bits: UInt32[Array, "B Q W"] | None
    k_bits: UInt32[Array, "B K W"] | None
    segment_ids: Int32[Array, "B K"] | None


class Kernel(NamedTuple):
    """Two functions; a row that sees no key is zero, with some finite log-sum-exp.

    forward: (inputs, scale) -> out [B, Q, H, C] in the query's dtype, mass float32 [B, H, Q]
      (None without bits) and lse float32 [B, H, Q], the log-sum-exp of the scaled scores.
    backward: (inputs, scale, out, mass, lse, d_out, d_mass) -> d_query, d_key, d_value in the
      dtypes of the inputs; mass and d_mass are None without bits.
    """

    forward: Callable[[Inputs, float], tuple[Array, Array | None, Array]]
    backward: Callable[..., tuple[Array, Array, Array]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
def differentiable(
    kernel: Kernel, inputs: Inputs, scale: float
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Run the kernel; reverse mode runs its backward, from out, mass and lse that are saved."""
    out, mass, _ = kernel.forward(inputs, scale)
    return out, mass


def _forward(kernel: Kernel, inputs: Inputs, scale: float):
    out, mass, lse = kernel.forward(inputs, scale)
    out_name, mass_name, lse_name = RESIDUAL_NAMES
    out, lse = checkpoint_name(out, out_name), checkpoint_name(lse, lse_name)
    mass = None if mass is None else checkpoint_name(mass, mass_name)
    return (out, mass), (inputs, out, mass, lse)


def _backward(kernel: Kernel, scale: float, residuals, cotangents) -> tuple[Inputs]:
    inputs, out, mass, lse = residuals
    d_out, d_mass = cotangents
    grads = kernel.backward(inputs, scale, out, mass, lse, d_out, d_mass)
    return (Inputs(*grads, None, None, None),)


differentiable.defvjp(_forward, _backward)
