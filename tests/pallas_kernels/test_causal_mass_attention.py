"""Value and gradient of every implementation against explicit loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    TOLERANCE,
    Case,
    assert_blind_queries_are_zero,
    assert_close,
    assert_close_in,
    assert_gradient_of_mass,
    in_dtype,
    make_case,
    oracle,
    run_kernel,
    with_large_scores,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels import causal_mass_attention
from pallas_kernels.causal_mass_attention.chunked import chunked_kernel
from pallas_kernels.causal_mass_attention.reference import attention_probabilities, masked_softmax


@functools.partial(jax.jit, static_argnums=(1, 2))
def run(case: Case, implementation, scale=None):
    """Return the same numbers from an implementation; an int is "xla_chunked" with that block."""

    if isinstance(implementation, int):
        return run_kernel(chunked_kernel(implementation), case, scale)

    def attend(query, key, value):
        options = {"segment_ids": case.segments, "scale": scale, "implementation": implementation}
        return causal_mass_attention(query, key, value, *case.bits, **options)

    results, pullback = jax.vjp(attend, *case.arrays)
    return results, pullback(case.cotangents)


CASES = {
    "one position": (make_case(2, 1, 1, 6, 3, 5, 4), 512),
    "MHA": (make_case(2, 7, 7, 4, 4, 5, 3, seed=1), 3),
    "MQA": (make_case(3, 8, 8, 6, 1, 5, 2, seed=2), 4),
    "GQA, segments": (make_case(2, 37, 37, 12, 4, 5, 3, segments=True, seed=3), 8),
    "GQA, unaligned": (make_case(2, 130, 130, 6, 3, 5, 1, seed=4), 32),
    "prefix": (make_case(2, 11, 37, 6, 3, 5, 4, segments=True, seed=5), 8),
}


@pytest.mark.parametrize("implementation", ["xla", "xla_chunked", "blocks"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name, implementation):
    case, block = CASES[name]
    (out, mass), grads = run(case, block if implementation == "blocks" else implementation)
    assert out.dtype == mass.dtype == jnp.float32
    assert_close(((out, mass), grads), oracle(case))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 2),
    q=st.integers(1, 20),
    prefix=st.integers(0, 5),
    per_group=st.integers(1, 3),
    g=st.integers(1, 3),
    c=st.integers(1, 4),
    w=st.integers(1, 2),
    block=st.integers(1, 24),
    segments=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_block(b, q, prefix, per_group, g, c, w, block, segments, seed):
    case = make_case(b, q, q + prefix, g * per_group, g, c, w, segments=segments, seed=seed)
    assert_close(run(case, block), oracle(case))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
@pytest.mark.parametrize("implementation", ["xla", 8])
def test_low_precision(implementation, dtype, tolerance):
    case = in_dtype(CASES["GQA, segments"][0], dtype)
    assert_close_in(dtype, run(case, implementation), case, tolerance)


@pytest.mark.parametrize("implementation", ["xla", 8])
def test_scores_beyond_the_range_of_exp(implementation):
    case = with_large_scores(make_case(2, 19, 19, 6, 3, 5, 1, seed=6))
    values, grads = run(case, implementation, 1.0)
    expected, expected_grads = oracle(case, scale=1.0)
    assert_close(values, expected)
    # Rounding of dS is multiplied by queries and keys 30 times the usual size.
    assert_close(grads, expected_grads, 30 * TOLERANCE)


@pytest.mark.parametrize("implementation", ["xla", 8])
def test_scale(implementation):
    case = make_case(2, 19, 19, 6, 3, 5, 1, seed=7)
    assert_close(run(case, implementation, 0.3), oracle(case, scale=0.3))


@pytest.mark.parametrize("implementation", ["oracle", "xla", "xla_chunked", 4])
def test_gradients_match_finite_differences_of_the_mass(implementation):
    case = make_case(2, 9, 9, 4, 2, 3, 1, segments=True, seed=8)
    if implementation == "oracle":
        assert_gradient_of_mass(oracle, case, 1e-8)
    else:
        assert_gradient_of_mass(lambda case: run(case, implementation), case, TOLERANCE)


@pytest.mark.parametrize("implementation", ["xla", "xla_chunked", 8])
@pytest.mark.parametrize(("q_bit", "k_bit", "mass"), [(4, 4, 1.0), (4, 3, 0.0), (0, 4, 0.0)])
def test_all_or_nothing_annotated(implementation, q_bit, k_bit, mass):
    case = make_case(2, 19, 19, 6, 3, 5, 4, segments=True, seed=10)
    bits = tuple(np.zeros_like(x) for x in case.bits)
    bits[0][..., 3], bits[1][..., 3] = q_bit, k_bit
    d_out, d_mass = case.cotangents
    case = case._replace(bits=bits, cotangents=(np.zeros_like(d_out), d_mass))
    (_, actual), grads = run(case, implementation)
    np.testing.assert_allclose(actual, mass, rtol=0, atol=1e-6)
    for grad in grads:
        np.testing.assert_allclose(grad, 0, rtol=0, atol=0.0 if mass == 0 else 1e-5)


@pytest.mark.parametrize("implementation", ["xla", 4])
def test_bits_of_another_segment_do_not_count(implementation):
    case = make_case(2, 10, 10, 6, 3, 5, 1, seed=11)
    q_bits, k_bits = (np.ones_like(x) for x in case.bits)
    k_bits[:, 5:] = 2  # the second segment has no key with the bit of its queries
    segments = np.repeat(np.int32([[0, 1]]), 5, axis=1).repeat(2, axis=0)
    case = case._replace(bits=(q_bits, k_bits), segments=segments)
    (_, mass), _ = run(case, implementation)
    np.testing.assert_allclose(mass[..., :5], 1, atol=1e-6)
    np.testing.assert_array_equal(mass[..., 5:], 0)


@pytest.mark.parametrize("implementation", ["xla", "xla_chunked"])
def test_without_bits_the_mass_is_none(implementation):
    case, _ = CASES["GQA, segments"]
    d_out, d_mass = case.cotangents
    bare = case._replace(bits=(None, None), cotangents=(d_out, None))
    (out, mass), grads = run(bare, implementation)
    assert mass is None
    expected = oracle(case._replace(cotangents=(d_out, np.zeros_like(d_mass))))
    assert_close((out, grads), (expected[0][0], expected[1]))


def test_rows_that_see_nothing_are_zero_and_have_no_gradient():
    scores = jnp.asarray([[1.0, jnp.inf, 2.0], [jnp.inf, -jnp.inf, jnp.nan]])
    visible = jnp.asarray([[True, False, True], [False, False, False]])
    probs, pullback = jax.vjp(lambda s: masked_softmax(s, visible), scores)
    sigmoid = 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(probs, [[sigmoid, 0, 1 - sigmoid], [0, 0, 0]], rtol=1e-6)
    slope = sigmoid * (1 - sigmoid)
    (grad,) = pullback(jnp.ones((2, 3)).at[0, 0].set(2.0))
    np.testing.assert_allclose(grad, [[slope, 0, -slope], [0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("block", [2, 512])
def test_chunked_rows_that_see_nothing(block):
    case = make_case(2, 7, 5, 6, 3, 4, 1, seed=12)
    assert_blind_queries_are_zero(run(case, block), case)


def test_probabilities_reproduce_out_and_mass():
    case, _ = CASES["prefix"]
    probs = np.asarray(attention_probabilities(*case.arrays[:2], case.segments), np.float64)
    out, mass = oracle(case)[0]
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-6)
    values = case.arrays[2].repeat(2, axis=2)  # H // G = 2
    assert_close(np.einsum("bhqk,bkhc->bqhc", probs, values), out)
    hit = ((case.bits[0][:, :, None] & case.bits[1][:, None]) != 0).any(-1)
    assert_close(np.einsum("bhqk,bqk->bhq", probs, hit), mass)
