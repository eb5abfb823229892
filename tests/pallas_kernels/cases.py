"""Random cases, and the numbers that every implementation must give for them, in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel, differentiable

TOLERANCE = 1e-5  # float32, relative to the largest entry


class Case(NamedTuple):
    arrays: tuple  # query, key, value
    bits: tuple
    segments: np.ndarray | None
    cotangents: tuple  # of out, mass


def make_case(b, q, k, h, g, c, w, *, segments=False, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (b, q, h, c), (b, k, g, c), (b, k, g, c), (b, q, h, c), (b, h, q)
    query, key, value, d_out, d_mass = (rng.normal(size=s).astype(np.float32) for s in shapes)
    # Few bits, so that some pairs share one and some do not; bit 31 and every word take part.
    one_hot = np.uint32([0, 1, 2, 1 << 31])
    bits = tuple(rng.choice(one_hot, p=[0.55, 0.15, 0.15, 0.15], size=(b, t, w)) for t in (q, k))
    ids = np.sort(rng.integers(0, 4, size=(b, k)), axis=1).astype(np.int32)
    return Case((query, key, value), bits, ids if segments else None, (d_out, d_mass))


def oracle(case: Case, scale=None):
    """Return (out, mass), (d_query, d_key, d_value) by one softmax row at a time, in float64."""
    query, key, value, d_out, d_mass = (
        np.asarray(x).astype(np.float64) for x in (*case.arrays, *case.cotangents)
    )
    (batch, queries, heads, size), (keys, groups) = query.shape, key.shape[1:3]
    scale = 1 / np.sqrt(size) if scale is None else scale
    out, mass = np.zeros_like(query), np.zeros((batch, heads, queries))
    grads = d_query, d_key, d_value = [np.zeros_like(x) for x in (query, key, value)]
    for b, h, i in np.ndindex(batch, heads, queries):
        g, position = h // (heads // groups), keys - queries + i
        seen = np.arange(keys) <= position
        if case.segments is not None:
            seen &= case.segments[b] == case.segments[b, position]
        hit = ((case.bits[0][b, i] & case.bits[1][b]) != 0).any(-1)[seen]
        scores = scale * key[b, seen, g] @ query[b, i, h]
        probs = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        out[b, i, h], mass[b, h, i] = probs @ value[b, seen, g], probs @ hit
        d_probs = value[b, seen, g] @ d_out[b, i, h] + d_mass[b, h, i] * hit
        d_scores = scale * (np.diag(probs) - np.outer(probs, probs)) @ d_probs
        d_query[b, i, h] = d_scores @ key[b, seen, g]
        d_key[b, seen, g] += np.outer(d_scores, query[b, i, h])
        d_value[b, seen, g] += np.outer(probs, d_out[b, i, h])
    return (out, mass), tuple(grads)


def run_kernel(kernel: Kernel, case: Case, scale=None):
    """Return ((out, mass), (d_query, d_key, d_value)) of the kernel."""
    scale = case.arrays[0].shape[-1] ** -0.5 if scale is None else scale

    def attend(query, key, value):
        return differentiable(kernel, Inputs(query, key, value, *case.bits, case.segments), scale)

    results, pullback = jax.vjp(attend, *case.arrays)
    return results, pullback(case.cotangents)


def assert_close(actual, expected, tolerance=TOLERANCE):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a = np.asarray(a).astype(np.float64)
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


def in_dtype(case: Case, dtype) -> Case:
    """Round all but the bits, the segments and the cotangent of the mass, which is float32."""
    d_out, d_mass = case.cotangents
    *arrays, d_out = (jnp.asarray(x, dtype) for x in (*case.arrays, d_out))
    return case._replace(arrays=tuple(arrays), cotangents=(d_out, d_mass))


def assert_close_in(dtype, numbers, case: Case, tolerance, mass_tolerance=TOLERANCE):
    """Compare numbers of a case ``in_dtype`` with those of float64.

    out: probabilities and result are rounded to the dtype; gradients: dS and the saved out as well.
    mass: products of such inputs are exact in float32, so it is as good as in float32, unless it is
    the sum of rounded probabilities.
    """
    (out, mass), grads = numbers
    expected, expected_grads = oracle(case)
    assert {x.dtype for x in (out, *grads)} == {jnp.dtype(dtype)}
    assert mass.dtype == jnp.float32
    assert_close(mass, expected[1], mass_tolerance)
    assert_close(out, expected[0], tolerance)
    assert_close(grads, expected_grads, 2 * tolerance)


def with_large_scores(case: Case) -> Case:
    """Round 30 times queries and keys: with scale 1 scores are exact, and beyond exp's range."""
    query, key = (np.round(30 * x) for x in case.arrays[:2])
    per_group = query.shape[2] // key.shape[2]
    largest = np.einsum("bqhc,bkhc->bhqk", query, key.repeat(per_group, axis=2)).max()
    assert largest > 1000
    return case._replace(arrays=(query, key, case.arrays[2]))


def assert_gradient_of_mass(run, case: Case, tolerance):
    """Compare gradients of the mass alone, by ``run(case)``, with its finite differences."""
    d_out, d_mass = case.cotangents
    case = case._replace(cotangents=(np.zeros_like(d_out), d_mass))
    rng = np.random.default_rng(9)
    direction = [rng.normal(size=x.shape) for x in case.arrays]

    def loss(step):
        moved = tuple(x + step * d for x, d in zip(case.arrays, direction, strict=True))
        return float((d_mass * oracle(case._replace(arrays=moved))[0][1]).sum())

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    _, grads = run(case)
    along = sum((np.asarray(g) * d).sum() for g, d in zip(grads, direction, strict=True))
    assert along == pytest.approx(slope, rel=tolerance)
    np.testing.assert_array_equal(grads[2], 0)  # values have no part in the mass


def assert_blind_queries_are_zero(numbers, case: Case):
    """Check a case of more queries than keys, which the public function refuses.

    The first ones precede every key.
    """
    blind = case.arrays[0].shape[1] - case.arrays[1].shape[1]
    (out, mass), (d_query, d_key, d_value) = numbers
    for x in (out[:, :blind], mass[..., :blind], d_query[:, :blind]):
        np.testing.assert_array_equal(x, 0)
    seeing = Case(
        (case.arrays[0][:, blind:], *case.arrays[1:]),
        (case.bits[0][:, blind:], case.bits[1]),
        None,
        (case.cotangents[0][:, blind:], case.cotangents[1][..., blind:]),
    )
    rest = (out[:, blind:], mass[..., blind:]), (d_query[:, blind:], d_key, d_value)
    assert_close(rest, oracle(seeing))
