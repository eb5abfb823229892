"""The mass from stock attention: on full maps, and on splash attention in its interpreter."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo
from tpu_compiler import compile_for

from pallas_kernels.causal_mass_attention import augmented as module
from pallas_kernels.causal_mass_attention.augmented import (
    augmented,
    cudnn,
    materialized,
    may_share_two_bits,
    splash_attention,
    unsupported_reason,
)
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

STOCKS = {
    "materialized": materialized,
    "splash": partial(splash_attention, interpret=True),
}


def one_bit_a_query(case):
    """The same case with a single bit per query, so that no pair shares two."""
    q_bits = np.zeros_like(case.bits[0])
    q_bits[..., -1] = np.random.default_rng(0).choice(np.uint32([0, 1, 1 << 31]), q_bits.shape[:2])
    return case._replace(bits=(q_bits, case.bits[1]))


@partial(jax.jit, static_argnums=1)
def run(case, stock):
    def attend(query, key, value):
        scale = query.shape[-1] ** -0.5
        inputs = Inputs(query, key, value, *case.bits, case.segments)
        return augmented(inputs, scale, stock=stock)

    results, pullback = jax.vjp(attend, *case.arrays)
    return results, pullback(case.cotangents)


@pytest.mark.parametrize("stock", STOCKS)
@pytest.mark.parametrize(
    "case",
    [
        make_case(2, 7, 7, 4, 4, 5, 3, seed=1),
        make_case(1, 130, 130, 6, 3, 8, 1, segments=True, seed=2),
        make_case(2, 11, 37, 6, 1, 5, 2, segments=True, seed=3),
    ],
    ids=["MHA", "GQA, segments", "MQA, prefix"],
)
def test_value_and_gradient(case, stock):
    case = one_bit_a_query(case)
    assert np.asarray(oracle(case)[0][1]).max() > 0.5
    assert_close(run(case, STOCKS[stock]), oracle(case))


def test_without_bits():
    case = make_case(2, 7, 7, 4, 2, 5, 1)._replace(bits=(None, None))
    (out, mass), _ = run(case._replace(cotangents=(case.cotangents[0], None)), materialized)
    assert mass is None
    expected, _ = oracle(case._replace(bits=(np.zeros((2, 7, 1), np.uint32),) * 2))
    assert_close(out, expected[0])


def test_a_row_that_could_count_twice_is_not_a_number():
    case = one_bit_a_query(make_case(1, 6, 6, 2, 1, 4, 2))
    q_bits, k_bits = (bits.copy() for bits in case.bits)
    k_bits[0, 4] = [1, 4]
    q_bits[0, 2] = [1, 4]
    (out, mass), _ = run(case._replace(bits=(q_bits, k_bits)), materialized)
    assert np.isfinite(out).all()
    assert np.isnan(np.asarray(mass)).any(axis=1).tolist() == [[i == 2 for i in range(6)]]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 2), st.integers(0, 99)
)
def test_sharing_two_bits_is_found(b, q, k, w, seed):
    rng = np.random.default_rng(seed)
    q_bits, k_bits = (
        (1 << rng.integers(0, 32, (b, t, w, 2))).sum(-1).astype(np.uint32) for t in (q, k)
    )
    shared = np.bitwise_count(q_bits[:, :, None] & k_bits[:, None]).sum(-1) > 1
    assert np.array_equal(jax.jit(may_share_two_bits)(q_bits, k_bits), shared.any(-1))


def struct(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float32"}, "bfloat16 or float16, not float32"),
        ({"segments": True}, "takes no segment_ids"),
        ({"queries": 5}, "as many queries as keys, not 5 and 8"),
        ({"queries": 1, "keys": 1}, "two or more positions, not of one"),
        ({"head_dim": 12}, "multiples of 8 up to 256, not 12"),
        ({"head_dim": 264, "words": 0}, "multiples of 8 up to 256, not 264"),
        ({"head_dim": 200, "words": 2}, "values up to 256 wide, not 264"),
    ],
)
def test_what_cudnn_does_not_support(change, message):
    """Refused in the same words when traced and, for a Hopper GPU, beforehand."""
    dtype, head_dim, queries, keys, words, segments, *_ = InputSpec(
        "bfloat16", 16, 8, 8, 1, False
    )._replace(**change)
    query, key = struct(dtype, 3, queries, 4, head_dim), struct(dtype, 3, keys, 2, head_dim)
    bits = [struct("uint32", 3, t, words) if words else None for t in (queries, keys)]
    inputs = Inputs(query, key, key, *bits, struct("int32", 3, keys) if segments else None)
    with pytest.raises(ValueError, match=message) as raised:
        jax.eval_shape(lambda inputs: augmented(inputs, 0.5, stock=cudnn), inputs)
    machine = Machine("gpu", "H100", "9.0")
    assert unsupported_reason(InputSpec.of(inputs), machine) == str(raised.value)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head_dim", "words", "message"),
    [
        ("gpu", "8.6", "bfloat16", 64, 1, "needs Hopper or newer .* has 8.6"),
        ("gpu", "8.6", "bfloat16", 128, 0, None),
        ("gpu", "8.6", "bfloat16", 136, 0, "multiples of 8 up to 128, not 136"),
        ("gpu", "9.0", "bfloat16", 128, 4, None),
        ("gpu", "10.0", "bfloat16", 64, 2, None),
        ("gpu", "10.0", "bfloat16", 128, 1, "values up to 128 wide, not 160"),
        ("tpu", "unknown", "float16", 64, 1, "takes bfloat16 or float32, not float16"),
        ("tpu", "unknown", "float32", 5, 1, None),
        ("cpu", "unknown", "float16", 5, 1, None),
    ],
)
def test_what_a_machine_does_not_support(platform, capability, dtype, head_dim, words, message):
    spec = InputSpec(dtype, head_dim, 16, 16, words, segments=False)
    reason = unsupported_reason(spec, Machine(platform, "some device", capability))
    assert (reason is None) if message is None else re.search(message, reason)


def gradient_and_shapes(stock, shape):
    """The gradient of a loss of out and mass, and what it takes."""
    batch, length, heads, groups, size = shape

    def loss(query, key, value, q_bits, k_bits):
        out, mass = augmented(Inputs(query, key, value, q_bits, k_bits, None), 0.3, stock=stock)
        return out.astype(jnp.float32).sum() + mass.sum()

    arrays = [struct(jnp.bfloat16, batch, length, n, size) for n in (heads, groups, groups)]
    bits = [struct(jnp.uint32, batch, length, 1)] * 2
    return jax.grad(loss, argnums=(0, 1, 2)), (*arrays, *bits)


def export(stock, platform, shape):
    """The text of the lowered program."""
    gradient, shapes = gradient_and_shapes(stock, shape)
    checks = [jax.export.DisabledSafetyCheck.custom_call(n) for n in CUDNN_CALLS]
    exported = jax.export.export(jax.jit(gradient), platforms=[platform], disabled_checks=checks)
    return exported(*shapes).mlir_module()


LONG = 32_768
CUDNN_CALLS = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")


def test_lowering_for_tpu():
    text = export(splash_attention, "tpu", (1, LONG, 4, 2, 128))
    assert text.count("tpu_custom_call") >= 3
    assert f"{LONG}x{LONG}" not in text


@pytest.mark.slow
def test_the_tpu_compiler_takes_no_float16():
    """The limit that ``unsupported_reason`` states is real."""
    arrays = [struct("float16", 1, 300, n, 64) for n in (4, 2, 2)]
    with pytest.raises(Exception, match="Mosaic failed to compile"):
        compile_for("v5e", lambda *x: splash_attention(*x, None, 0.3), *arrays)


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["v5e", "v6e"])
def test_compiles_for_tpu(generation):
    gradient, shapes = gradient_and_shapes(splash_attention, (1, 1000, 4, 2, 64))
    compile_for(generation, gradient, *shapes)


def test_lowering_for_cuda(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    text = export(cudnn, "cuda", (2, LONG, 4, 2, 128))
    assert all(name in text for name in CUDNN_CALLS)
    assert f"2x{LONG}x2x160" in text  # values with the columns
    assert f"{LONG}x{LONG}" not in text


def test_the_stock_kernel_is_that_of_the_machine(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    case = make_case(1, 4, 4, 2, 2, 8, 1)
    with pytest.raises(ValueError, match="not float32"):
        run(case, None)
    assert module.STOCK.keys() == {"gpu", "tpu"}
