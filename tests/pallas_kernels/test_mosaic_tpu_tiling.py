"""Which tiles the TPU kernels compute, and how, against every pair of positions."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl

from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.tpu import tiling as mosaic_tpu_tiling
from pallas_kernels.causal_mass_attention.tpu.tiling import Tiling, for_this_tile


def tile_runs(monkeypatch, tiling, summaries):
    """(i, j) -> the (masked, mass) bodies that run there."""
    runs = {}
    monkeypatch.setattr(pl, "when", lambda condition: lambda body: body() if condition else None)
    for i, j in np.ndindex(tiling.q_count, tiling.k_count):
        found = runs[i, j] = []
        index = (np.int64(n) for n in (0, i, j))  # numpy: ~ of its booleans is "not"
        for_this_tile(tiling, *index, *summaries, lambda *kind, found=found: found.append(kind))
    return runs


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    queries=st.integers(1, 700),
    prefix=st.integers(0, 300),
    q_block=st.sampled_from([128, 256]),
    k_block=st.sampled_from([128, 256]),
    words=st.integers(0, 2),
    segments=st.booleans(),
    marks=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_tiles_run_when_and_as_they_must(
    queries, prefix, q_block, k_block, words, segments, marks, seed
):
    rng = np.random.default_rng(seed)
    keys = queries + prefix
    # Annotation in a stretch of the row only, so that some tiles have none.
    q_bits, k_bits = np.zeros((2, 1, keys, max(words, 1)), np.uint32)
    for bits, width in ((q_bits, 60), (k_bits, 90)):
        start = rng.integers(0, keys)
        bits[0, start : start + width, rng.integers(0, max(words, 1))] = 1 << 31
    q_bits = q_bits[:, prefix:]
    q_bits[0, rng.integers(0, queries)] |= 3  # one query with several bits, if any
    ids = np.sort(rng.integers(0, 3, (1, keys)), axis=1).astype(np.int32)
    query, key = jnp.zeros((1, queries, 1, 1)), jnp.zeros((1, keys, 1, 1))
    bits = (jnp.asarray(q_bits), jnp.asarray(k_bits)) if words else (None, None)
    inputs = Inputs(query, key, key, *bits, jnp.asarray(ids) if segments else None)
    tiling = Tiling.of(inputs, 1.0, q_block, k_block, marks and words > 0)
    several = np.bitwise_count(q_bits[0]).sum(-1) > 1

    at = np.arange(queries) + prefix
    seen = np.arange(keys) <= at[:, None]
    if segments:
        seen &= ids[0, at][:, None] == ids[0]
    hit = ((q_bits[0][:, None] & k_bits[0]) != 0).any(-1) & (words > 0)

    tags = mosaic_tpu_tiling.tags(tiling, inputs)
    blocks = (tiling.q_block, tiling.k_block)
    summaries = [
        None if m is None else np.asarray(mosaic_tpu_tiling.summary(tiling, m, n))
        for m, n in zip(tags, blocks, strict=True)
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        runs = tile_runs(monkeypatch, tiling, summaries)
    for (i, j), kinds in runs.items():
        rows = slice(i * tiling.q_block, (i + 1) * tiling.q_block)
        columns = slice(j * tiling.k_block, (j + 1) * tiling.k_block)
        s, h = seen[rows, columns], hit[rows, columns]
        assert len(kinds) <= 1
        if not kinds:
            assert not s.any()
            continue
        ((masked, mass),) = kinds
        annotated = mass != "none"
        assert masked or s.all()
        if annotated:
            assert mass == ("marks" if tiling.marks and not several[rows].any() else "bits")
        assert annotated or not (s & h).any()
        # And no more than that: nothing above the diagonal, no mass where no bit is met.
        assert j * tiling.k_block <= prefix + (i + 1) * tiling.q_block - 1
        if not segments and (i + 1) * tiling.q_block <= queries:
            assert masked is not s.all()
        assert annotated <= bool(h.any() or words > 1)
        assert j <= int(tiling.last_k_block(jnp.int32(i)))
        assert i >= int(tiling.first_q_block(jnp.int32(j)))
