"""The Hopper kernels in the interpreter of jax, against softmax rows in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, assert_close, in_dtype, make_case, oracle, run_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.hopper import kernel as hopper
from pallas_kernels.causal_mass_attention.hopper.kernel import OLDEST_JAX, mosaic_gpu_kernel
from pallas_kernels.causal_mass_attention.hopper.operands import cut_keys, cut_queries, prepare
from pallas_kernels.causal_mass_attention.hopper.tiles import (
    BLOCK,
    ROWS,
    SIZES,
    Tile,
    TileSizes,
)

TOLERANCE = 1.5e-2  # of the largest entry: bfloat16 products and results
MASS_TOLERANCE = 1e-5  # float32 sums of float32 weights, of scores that are float32
SMALL = TileSizes(Tile(64, 2), Tile(64, 2), Tile(64, 2), interpret_friendly=True)
SEPARATE = TileSizes(Tile(64, 2), Tile(32, 2), Tile(32, 3), True, interpret_friendly=True)
REAL = SIZES[64]._replace(interpret_friendly=True)

pytestmark = pytest.mark.hopper
needs_interpreter = pytest.mark.skipif(
    jax.__version_info__ < OLDEST_JAX, reason="the GPU interpreter came with jax 0.11"
)


def check(case: Case, sizes: TileSizes, scale=None):
    from jax._src.pallas.mosaic_gpu.interpret.interpret_pallas_call import get_races
    from jax.experimental.pallas import mosaic_gpu as plgpu

    params = plgpu.InterpretGPUParams(detect_races=True, uninitialized_memory="nan")
    with plgpu.force_gpu_interpret_mode(params):
        (out, mass), grads = run_kernel(mosaic_gpu_kernel(sizes), case, scale)
    assert not get_races().races_found
    (out_64, mass_64), grads_64 = oracle(case, scale)
    assert out.dtype == case.arrays[0].dtype
    assert_close((out, grads), (out_64, grads_64), TOLERANCE)
    assert mass.dtype == np.float32
    assert_close(mass, mass_64, MASS_TOLERANCE)


def mark(length: int, *positions: int, word: int = 0, words: int = 1, bit: int = 31):
    bits = np.zeros((1, length, words), np.uint32)
    bits[:, list(positions), word] = 1 << bit
    return bits


LENGTH = 150
ADVERSARIAL = {
    "later keys only": (mark(LENGTH, 10, 70), mark(LENGTH, 71, 149)),
    "edges of tiles": (mark(LENGTH, 63, 64, 127, 128, 149), mark(LENGTH, 0, 63, 64, 127, 128)),
    "second word": (mark(LENGTH, 100, word=1, words=2), mark(LENGTH, 3, 99, word=1, words=2)),
    "other bits of one tile": (mark(LENGTH, 90, bit=1), mark(LENGTH, 5, bit=2)),
    "all": (np.full((1, LENGTH, 1), 2**32 - 1, np.uint32),) * 2,
    # Tiles of no class, of one, of another and of two, with queries without bits among them.
    "classes": (
        mark(LENGTH, 64, 70, 128, bit=0) | mark(LENGTH, 130, 131, bit=5),
        mark(LENGTH, 3, 65, 128, bit=0) | mark(LENGTH, 3, 9, 129, bit=5),
    ),
}


QUICK = "later keys only", "edges of tiles", "classes"


@needs_interpreter
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in ADVERSARIAL],
)
def test_adversarial_bits(name):
    case = make_case(1, LENGTH, LENGTH, 1, 1, 64, 1, seed=3)
    check(in_dtype(case._replace(bits=ADVERSARIAL[name]), "bfloat16"), SMALL)


CASES = {
    "one position": (make_case(1, 1, 1, 2, 1, 64, 1, seed=1), SMALL),
    "GQA, segments, two words": (make_case(1, 140, 140, 4, 2, 64, 2, segments=True, seed=2), SMALL),
    "prefix": (make_case(1, 70, 201, 2, 1, 64, 1, seed=3), SMALL),
}
SLOW_CASES = {
    "batch, segments": (make_case(2, 260, 260, 2, 1, 64, 1, segments=True, seed=4), SMALL),
    "prefix, segments": (make_case(2, 33, 201, 2, 1, 64, 3, segments=True, seed=5), SMALL),
    "odd head size": (make_case(1, 130, 130, 2, 2, 80, 1, seed=6), SMALL),
    "two passes": (make_case(1, 130, 130, 2, 1, 96, 1, segments=True, seed=7), SEPARATE),
    "tiles of the hardware": (make_case(1, 520, 520, 2, 1, 64, 1, segments=True, seed=8), REAL),
}


@needs_interpreter
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name):
    case, sizes = CASES[name]
    check(in_dtype(case, "bfloat16"), sizes)


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_value_and_gradient_of_more(name):
    case, sizes = SLOW_CASES[name]
    check(in_dtype(case, "bfloat16"), sizes)


@needs_interpreter
def test_one_block_sums_over_the_heads_of_a_group(monkeypatch):
    from pallas_kernels.causal_mass_attention.hopper import key_gradient

    monkeypatch.setattr(key_gradient, "MULTIPROCESSORS", 0)  # always busy enough
    check(in_dtype(make_case(1, 80, 140, 3, 1, 64, 1, segments=True, seed=12), "bfloat16"), SMALL)


@needs_interpreter
@pytest.mark.parametrize(
    ("batch", "keys", "heads", "parts"),
    [(1, 4096, (12, 2), 6), (1, 8192, (12, 2), 3), (1, 8192, (32, 8), 1), (2, 4096, (32, 8), 1)],
)
def test_parts_of_a_group(batch, keys, heads, parts):
    from pallas_kernels.causal_mass_attention.hopper.key_gradient import parts_of_group

    q, k = (jax.ShapeDtypeStruct((batch, keys, n, 64), "bfloat16") for n in heads)
    problem, _ = prepare(SMALL, Inputs(q, k, k, None, None, None), 1.0)
    assert parts_of_group(problem) == parts


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.0, -0.3])
def test_scales_that_turn_the_order_around(scale):
    check(in_dtype(make_case(1, 70, 70, 1, 1, 64, 1, seed=9), "bfloat16"), SMALL, scale)


@needs_interpreter
@pytest.mark.slow
def test_float16():
    check(in_dtype(make_case(1, 70, 70, 1, 1, 64, 1, seed=10), "float16"), SMALL)


@needs_interpreter
def test_without_bits_there_is_no_mass():
    from jax.experimental.pallas import mosaic_gpu as plgpu

    case = in_dtype(make_case(1, 70, 70, 1, 1, 64, 1, seed=11), "bfloat16")
    d_out = case.cotangents[0]
    with plgpu.force_gpu_interpret_mode():
        plain = case._replace(bits=(None, None), cotangents=(d_out, None))
        (out, mass), grads = run_kernel(mosaic_gpu_kernel(SMALL), plain)
    assert mass is None
    (out_64, _), grads_64 = oracle(case._replace(cotangents=(d_out, np.zeros((1, 1, 70)))))
    assert_close((out, grads), (out_64, grads_64), TOLERANCE)


def inputs(dtype="bfloat16", size=64, words=0):
    x = jax.ShapeDtypeStruct((1, 8, 1, size), dtype)
    bits = jax.ShapeDtypeStruct((1, 8, words), "uint32") if words else None
    return Inputs(x, x, x, bits, bits, None)


def trace(given: Inputs):
    return jax.eval_shape(lambda x: mosaic_gpu_kernel().forward(x, 1.0), given)


@needs_interpreter
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (inputs("float32"), "takes bfloat16 or float16, not float32: .* use xla_chunked"),
        (inputs(size=257), "takes head sizes up to 256, not 257: use xla_chunked"),
        (inputs(words=33), "takes up to 32 words of bits, not 33: use xla_chunked"),
    ],
)
def test_refuses_an_input(given, reason):
    with pytest.raises(ValueError, match=f"mosaic_gpu {reason}"):
        trace(given)


def test_refuses_an_old_jax(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 9))
    with pytest.raises(ValueError, match=r"mosaic_gpu needs jax 0\.11 or newer, not "):
        trace(inputs())


@needs_interpreter
@pytest.mark.parametrize(
    ("version", "name"), [(12070, None), (12080, "12.8.0"), (12090, "12.9.0"), (12091, None)]
)
def test_refuses_a_cuda_that_miscompiles(monkeypatch, version, name):
    monkeypatch.setattr(hopper, "_cuda_version", lambda: version)
    if name is None:
        out, _, _ = trace(inputs())
        assert out.shape == (1, 8, 1, 64)
    else:
        with pytest.raises(ValueError, match=f"not {name}, whose ptxas miscompiles causal"):
            trace(inputs())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_tiles_and_reach(data):
    """Unions, extremes and reach of tiles against the positions themselves."""
    queries, prefix = data.draw(st.sampled_from([1, 130, 300])), data.draw(st.sampled_from([0, 70]))
    keys, words = queries + prefix, data.draw(st.integers(1, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    q_bits, k_bits = (
        ((rng.random((2, t, words)) < 0.01) << rng.integers(30, 32, (2, t, words))).astype(
            np.uint32
        )
        for t in (queries, keys)
    )
    segments = rng.integers(0, 5, size=(2, keys)).astype(np.int32)
    if data.draw(st.booleans()):
        segments = np.sort(segments, axis=1)
    x = jnp.zeros((2, 1, 1, 64), jnp.bfloat16)
    q, k = (jnp.broadcast_to(x, (2, t, 1, 64)) for t in (queries, keys))
    problem, operands = prepare(SMALL, Inputs(q, k, k, q_bits, k_bits, segments), 1.0)
    by_keys, by_queries = cut_keys(problem, operands, 64), cut_queries(problem, operands, 64)
    own = segments[:, prefix:]
    for tiles, ids, bits in (
        (by_keys.q_tiles, own, q_bits),
        (by_keys.k_tiles, segments, k_bits),
        (by_queries.q_tiles, own, q_bits),
        (by_queries.k_tiles, segments, k_bits),
    ):
        for n in range(-(-ids.shape[1] // ROWS)):
            part = slice(n * ROWS, n * ROWS + ROWS)
            union = np.bitwise_or.reduce(bits[:, part].astype(np.int64), axis=1)
            bits_of = [
                [32 * w + b for w in range(words) for b in range(32) if x[w] >> b & 1]
                for x in union
            ]
            single = np.int32([x[0] if len(x) == 1 else -1 for x in bits_of]).view(np.uint32)
            expected = [
                ids[:, part].min(1),
                ids[:, part].max(1),
                *union.astype(np.uint32).T,
                single,
            ]
            actual = np.asarray(tiles)[:, n].view(np.uint32)
            np.testing.assert_array_equal(actual, np.stack(expected, 1).astype(np.uint32))
    for b in range(2):
        for n in range(-(-queries // BLOCK)):
            mine = own[b, n * BLOCK : n * BLOCK + BLOCK]
            met = np.flatnonzero(np.isin(segments[b], mine)) // 64
            assert by_keys.reach[b, n] <= met.min()
        for n in range(-(-keys // BLOCK)):
            mine = segments[b, n * BLOCK : n * BLOCK + BLOCK]
            met = np.flatnonzero(np.isin(own[b], mine)) // 64
            assert by_queries.reach[b, n] >= max(met, default=-1) + 1


def test_sorted_segments_are_met_exactly():
    segments = np.repeat(np.int32([3, 5, 6]), 256)[None]
    x = jnp.zeros((1, 768, 1, 64), jnp.bfloat16)
    problem, operands = prepare(SMALL, Inputs(x, x, x, None, None, segments), 1.0)
    np.testing.assert_array_equal(cut_keys(problem, operands, 64).reach[0], [0, 0, 4, 4, 8, 8])
    np.testing.assert_array_equal(cut_queries(problem, operands, 64).reach[0], [4, 4, 8, 8, 12, 12])
