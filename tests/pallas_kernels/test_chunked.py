"""What "xla_chunked" is for: memory linear in T, and residuals that remat can keep."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import causal_mass_attention
from pallas_kernels.causal_mass_attention import RESIDUAL_NAMES

LONG = 16_384


def loss(implementation):
    def f(query, key, value, bits, segments):
        out, mass = causal_mass_attention(
            query, key, value, bits, bits, segment_ids=segments, implementation=implementation
        )
        return jnp.sum(out**2) + jnp.sum(jnp.log1p(mass))

    return f


def shapes(length):
    floats = [jax.ShapeDtypeStruct((1, length, n, 4), jnp.float32) for n in (2, 1, 1)]
    return (
        *floats,
        jax.ShapeDtypeStruct((1, length, 3), jnp.uint32),
        jax.ShapeDtypeStruct((1, length), jnp.int32),
    )


def compile_gradient(implementation, length):
    gradient = jax.value_and_grad(loss(implementation), (0, 1, 2))
    return jax.jit(gradient).lower(*shapes(length)).compile()


def largest_array(compiled):
    sizes = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, size.split(","))) for size in sizes)


def temporary_bytes(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_linear_in_length():
    short, long = (compile_gradient("xla_chunked", t) for t in (LONG, 2 * LONG))
    assert largest_array(short) <= 3 * 512 * 512  # one tile of pairs, times the words of the bits
    assert largest_array(long) == largest_array(short)
    assert temporary_bytes(long) < 2 * temporary_bytes(short)
    full = compile_gradient("xla", LONG)
    assert largest_array(full) >= LONG**2
    assert temporary_bytes(full) > 50 * temporary_bytes(short)


def loops(f):
    return str(jax.make_jaxpr(jax.grad(f))(*shapes(24))).count(" while[")


def test_remat_that_keeps_the_residuals_runs_no_forward_twice():
    attend = loss("xla_chunked")
    keep = jax.checkpoint_policies.save_only_these_names(*RESIDUAL_NAMES)
    assert loops(jax.checkpoint(attend, policy=keep)) == loops(attend)
    assert loops(jax.checkpoint(attend)) == loops(attend) + 1


@pytest.mark.parametrize(("implementation", "blocked"), [("xla", False), ("xla_chunked", True)])
def test_the_named_implementation_runs(implementation, blocked):
    program = str(jax.make_jaxpr(loss(implementation))(*shapes(24)))
    assert ("custom_vjp" in program) is blocked
    assert ("while[" in program) is blocked
