"""Random cases, and the numbers every implementation must give for them, in float64."""

from typing import NamedTuple

import jax
import numpy as np

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel, differentiable

TOLERANCE = 1e-5  # of the largest entry, float32


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
    """(out, mass), (d_query, d_key, d_value): one softmax row at a time, with its Jacobian."""
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
    """((out, mass), (d_query, d_key, d_value)) as the kernel has them."""
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
