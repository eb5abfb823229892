"""The interface of a kernel, and the one differentiation rule for all kernels.

A kernel computes attention and its gradient in the public layouts; how it cuts, pads and
transposes them is its own business. Query i is at position K - Q + i of the keys.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Float32, Int32, UInt32

RESIDUAL_NAMES = ("causal_mass_out", "causal_mass_mass", "causal_mass_lse")
"""Residuals of the backward, for ``jax.checkpoint_policies.save_only_these_names``: a remat that
saves them runs no forward kernel twice."""


class Inputs(NamedTuple):
    """Arrays that a kernel reads, as the public function takes them."""

    query: Float[Array, "B Q H C"]
    key: Float[Array, "B K G C"]
    value: Float[Array, "B K G C"]
    q_bits: UInt32[Array, "B Q W"] | None
    k_bits: UInt32[Array, "B K W"] | None
    segment_ids: Int32[Array, "B K"] | None


class Kernel(NamedTuple):
    """Forward and backward; a query that sees no key has zeros and some finite log-sum-exp.

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
    """Run the kernel; reverse mode runs its backward on the saved out, mass and log-sum-exp."""
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


def softmax_delta(
    out_BQHC: Float[Array, "B Q H C"],
    mass_BHQ: Float32[Array, "B H Q"] | None,
    d_out_BQHC: Float[Array, "B Q H C"],
    d_mass_BHQ: Float32[Array, "B H Q"] | None,
) -> Float32[Array, "B H Q"]:
    """Return D_i = dO_i . O_i + g_i m_i, the sum of P_ij dP_ij over the keys of each query.

    The gradient of a score is dS_ij = P_ij (dP_ij - D_i), with g = dL/dm.
    """
    # Not a dot product: a GPU would round its operands to tensor-float-32.
    delta_BQH = jnp.sum(d_out_BQHC.astype(jnp.float32) * out_BQHC.astype(jnp.float32), -1)
    delta_BHQ = delta_BQH.swapaxes(1, 2)
    if mass_BHQ is None or d_mass_BHQ is None:
        return delta_BHQ
    return delta_BHQ + d_mass_BHQ * mass_BHQ
