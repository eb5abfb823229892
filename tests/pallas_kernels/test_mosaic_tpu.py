"""The TPU kernels in the TPU interpreter, against float64: races, NaN memory and bounds checked."""

import functools

import jax
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
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.tpu.kernel import Blocks, mosaic_tpu_kernel

SQUARE = Blocks.square(128)
MIXED = Blocks((128, 256), (256, 128), (256, 128))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def kernels(case: Case, blocks: Blocks, mxu_columns, scale):
    return run_kernel(mosaic_tpu_kernel(blocks, mxu_columns), case, scale)


def run(case: Case, blocks=SQUARE, scale=None, mxu_columns=128):
    parameters = pltpu.InterpretParams(
        detect_races=True, uninitialized_memory="nan", out_of_bounds_reads="raise", random_seed=0
    )
    with pltpu.force_tpu_interpret_mode(parameters):
        numbers = jax.block_until_ready(kernels(case, blocks, mxu_columns, scale))
    assert not interpret_pallas_call.races.races_found
    return numbers


CASES = {
    "one position": (make_case(1, 1, 1, 2, 1, 64, 1), SQUARE),
    "MHA, two words": (make_case(1, 200, 200, 2, 2, 80, 2, seed=1), SQUARE),
    "GQA, segments": (make_case(2, 150, 150, 4, 2, 96, 1, segments=True, seed=2), SQUARE),
    "MQA, prefix": (make_case(1, 130, 300, 3, 1, 64, 1, segments=True, seed=3), MIXED),
    "whole blocks": (make_case(1, 384, 384, 1, 1, 128, 1, seed=4), MIXED),
    "wide heads": (make_case(1, 140, 140, 1, 1, 256, 1, seed=5), SQUARE),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name):
    case, blocks = CASES[name]
    assert_close(run(case, blocks), oracle(case))


def with_single_bits(case: Case, several: slice = slice(0)) -> Case:
    """Leave each query one bit, but those of a slice."""
    q_bits = case.bits[0].copy()
    first = (q_bits != 0).cumsum(-1) == 1
    first[:, several] = True
    return case._replace(bits=(np.where(first, q_bits, 0), case.bits[1]))


SINGLE = {
    "one word": (with_single_bits(make_case(1, 150, 150, 2, 1, 64, 1, seed=21)), SQUARE),
    "segments": (with_single_bits(make_case(2, 140, 140, 2, 2, 80, 2, segments=True)), SQUARE),
    "four words, prefix": (with_single_bits(make_case(1, 130, 300, 3, 1, 128, 4, seed=22)), MIXED),
    "one block has several": (
        with_single_bits(make_case(1, 300, 300, 1, 1, 64, 3, seed=23), slice(130, 200)),
        SQUARE,
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_marks_as_columns_of_the_product(name):
    """On a matrix unit with columns to spare; the backward is the same."""
    case, blocks = SINGLE[name]
    assert_close(run(case, blocks, mxu_columns=256), oracle(case))


def test_the_mass_of_rounded_weights_is_one_at_most():
    case = in_dtype(make_case(1, 150, 150, 2, 1, 64, 1, seed=25), "bfloat16")
    (_, mass), _ = run(case._replace(bits=bits_of("all", 150, None)), mxu_columns=256)
    assert mass.min() >= 1 - 2.0**-9
    assert mass.max() == 1.0


def test_marks_in_bfloat16():
    case = in_dtype(with_single_bits(make_case(1, 150, 150, 2, 1, 64, 2, seed=24)), "bfloat16")
    numbers = run(case, mxu_columns=256)
    assert_close_in("bfloat16", numbers, case, 2.0**-7, mass_tolerance=2.0**-9)


@pytest.mark.parametrize(
    ("words", "size", "columns", "marked"),
    [(4, 128, 256, True), (5, 64, 256, False), (1, 136, 256, False), (1, 64, 191, False)],
)
def test_marks_need_a_column_for_each_bit(words, size, columns, marked):
    case = make_case(1, 128, 256, 1, 1, size, words)
    kernel = mosaic_tpu_kernel(SQUARE, columns)
    program = str(jax.make_jaxpr(lambda case: run_kernel(kernel, case)[0])(case))
    assert ("f32[1,256,128]" in program) is marked  # [B, K, 128]


def bits_of(kind: str, length: int, segments: np.ndarray):
    q_bits, k_bits = np.zeros((2, 1, length, 1), np.uint32)
    if kind == "all":
        q_bits[:], k_bits[:] = 1 << 31, 3 << 30
    elif kind == "one key":
        q_bits[:], k_bits[:, 5] = 1, 1
    elif kind == "diagonal":  # position i has bit i % 32 and meets itself alone among its segment
        q_bits[0, :, 0] = k_bits[0, :, 0] = 1 << (np.arange(length) % 32).astype(np.uint32)
    elif kind == "across segments":  # queries of a segment ask for keys of the one before
        k_bits[0, :, 0] = 1 << segments[0].astype(np.uint32)
        q_bits[0, :, 0] = k_bits[0, :, 0] >> 1
    return q_bits, k_bits


@pytest.mark.parametrize(
    ("kind", "mass"),
    [("none", 0), ("all", 1), ("one key", None), ("diagonal", None), ("across segments", 0)],
)
@pytest.mark.parametrize("columns", [128, 256])
def test_adversarial_bits(kind, mass, columns):
    case = make_case(1, 160, 160, 1, 1, 64, 1, segments=True, seed=6)
    ids = np.arange(160, dtype=np.int32)[None] // 32
    case = case._replace(segments=ids, bits=bits_of(kind, 160, ids))
    numbers, expected = run(case, mxu_columns=columns), oracle(case)
    assert_close(numbers, expected)
    if mass is not None:
        np.testing.assert_allclose(numbers[0][1], mass, rtol=0, atol=1e-6)
    if kind == "diagonal":  # the key that a query shares its bit with is itself
        assert (expected[0][1] < 1).any()
        assert (expected[0][1] > 0).all()


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    q=st.integers(1, 300),
    prefix=st.integers(0, 140),
    per_group=st.integers(1, 2),
    w=st.integers(1, 3),
    blocks=st.sampled_from([SQUARE, MIXED]),
    segments=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape(q, prefix, per_group, w, blocks, segments, seed):
    case = make_case(1, q, q + prefix, per_group, 1, 16, w, segments=segments, seed=seed)
    assert_close(run(case, blocks), oracle(case))


def test_without_bits_the_mass_is_none():
    case = make_case(1, 140, 140, 2, 1, 64, 1, seed=7)
    d_out, d_mass = case.cotangents
    (out, mass), grads = run(case._replace(bits=(None, None), cotangents=(d_out, None)))
    assert mass is None
    (expected, _), expected_grads = oracle(case._replace(cotangents=(d_out, np.zeros_like(d_mass))))
    assert_close((out, grads), (expected, expected_grads))


def test_gradient_matches_finite_differences_of_the_mass():
    assert_gradient_of_mass(run, make_case(1, 140, 140, 1, 1, 16, 1, seed=8), 1e-4)


def test_bfloat16():
    case = in_dtype(make_case(1, 150, 150, 2, 1, 64, 1, seed=10), "bfloat16")
    assert_close_in("bfloat16", run(case), case, 2.0**-7)


@pytest.mark.parametrize("scale", [0.0, -0.3])
def test_any_scale(scale):
    case = make_case(1, 140, 140, 1, 1, 16, 1, segments=True, seed=11)
    assert_close(run(case, scale=scale), oracle(case, scale))


def test_scores_beyond_the_range_of_exp():
    case = with_large_scores(make_case(1, 140, 140, 2, 1, 5, 1, seed=6))
    values, grads = run(case, scale=1.0)
    expected, expected_grads = oracle(case, scale=1.0)
    assert_close(values, expected)
    # The log-sum-exp is rounded at 1000, and queries and keys are 30 times the usual size.
    assert_close(grads, expected_grads, 300 * TOLERANCE)


def test_queries_that_see_nothing_are_zero():
    case = make_case(1, 170, 20, 2, 1, 16, 1, segments=False, seed=12)
    assert_blind_queries_are_zero(run(case), case)


def test_float16_is_refused():
    case = make_case(1, 8, 8, 1, 1, 64, 1)
    case = in_dtype(case, "float16")
    for kernel in (mosaic_tpu_kernel(), mosaic_tpu_kernel(SQUARE)):
        with pytest.raises(ValueError, match="takes bfloat16 or float32, not float16"):
            run_kernel(kernel, case)
