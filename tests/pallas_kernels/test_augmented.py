"""The mass from stock attention: on full maps, and on splash attention in its interpreter."""

import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import assert_close, make_case, oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo
from tpu_compiler import compile_for

from pallas_kernels.causal_mass_attention import stock as stock_module
from pallas_kernels.causal_mass_attention.augmented import augmented, unsupported_reason
from pallas_kernels.causal_mass_attention.classes import query_classes
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.stock import (
    Stock,
    cudnn,
    materialized,
    splash_attention,
    stock_kernel,
    wide_values_unsupported_reason,
)
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

STOCKS = {
    "materialized": Stock(materialized, wide_values=True),
    "second attention": Stock(materialized, wide_values=False),
    "splash": Stock(partial(splash_attention, interpret=True), wide_values=True),
}


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
    """Of queries with several bits, whose pairs share several."""
    shared = case.bits[0][:, :, None] & case.bits[1][:, None]
    assert case.bits[0].shape[-1] == 1 or np.bitwise_count(shared).sum(-1).max() > 1
    assert np.asarray(oracle(case)[0][1]).max() > 0.5
    assert_close(run(case, STOCKS[stock]), oracle(case))


def test_a_second_attention_has_values_as_wide_as_keys():
    widths = []

    def attend(query, key, value, segment_ids, scale):
        widths.append((key.shape[-1], value.shape[-1]))
        return materialized(query, key, value, segment_ids, scale)

    case = make_case(1, 9, 9, 2, 1, 24, 2, seed=4)
    assert_close(run(case, Stock(attend, wide_values=False)), oracle(case))
    assert widths == [(24, 24)] * 4  # 64 columns: 24, 24 and 16


def test_without_bits():
    case = make_case(2, 7, 7, 4, 2, 5, 1)._replace(bits=(None, None))
    given = case._replace(cotangents=(case.cotangents[0], None))
    (out, mass), _ = run(given, STOCKS["second attention"])
    assert mass is None
    expected, _ = oracle(case._replace(bits=(np.zeros((2, 7, 1), np.uint32),) * 2))
    assert_close(out, expected[0])


def test_more_classes_than_columns_are_not_a_number():
    case = make_case(1, 40, 40, 2, 1, 4, 1)
    q_bits = np.arange(40, dtype=np.uint32)[None, ::-1, None]  # 39 sets of bits and none
    case = case._replace(bits=(np.ascontiguousarray(q_bits), case.bits[1] | 8))
    (out, mass), _ = run(case, STOCKS["materialized"])
    assert np.isfinite(out).all()
    unknown = q_bits[0, :, 0] > 32
    assert np.isnan(np.asarray(mass)).tolist() == [[unknown.tolist()] * 2]
    expected = oracle(case)[0][1]
    assert_close(np.asarray(mass)[..., ~unknown], expected[..., ~unknown])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 2), st.integers(0, 99)
)
def test_classes_annotate_what_their_queries_do(b, q, k, w, seed):
    rng = np.random.default_rng(seed)
    q_bits, k_bits = (
        (rng.integers(0, 2, (b, t, w, 3)) << np.int64([0, 1, 31])).sum(-1).astype(np.uint32)
        for t in (q, k)
    )
    members, marks, is_known = map(np.asarray, jax.jit(query_classes)(q_bits, k_bits))
    assert members.shape == (b, q, 32 * w)
    assert marks.shape == (b, k, 32 * w)
    np.testing.assert_array_equal(members.sum(-1), q_bits.any(-1))
    assert is_known.all()
    annotated = (q_bits[:, :, None] & k_bits[:, None]).any(-1)
    np.testing.assert_array_equal(np.einsum("bqe,bke->bqk", members, marks), annotated)


def struct(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend to be a machine with a GPU and cuDNN."""

    def pretend(capability="9.0", version=91200):
        device = SimpleNamespace(device_kind="some GPU", compute_capability=capability)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "devices", lambda: [device])
        monkeypatch.setattr(stock_module, "cudnn_version", lambda: version)

    return pretend


@pytest.mark.parametrize(
    ("capability", "version", "change", "message"),
    [
        ("9.0", 91200, {"dtype": "float32"}, "bfloat16 or float16, not float32"),
        ("8.0", 91200, {"segments": True}, "takes no segment_ids"),
        ("9.0", 91200, {"queries": 5}, "as many queries as keys, not 5 and 8"),
        ("9.0", 91200, {"head_dim": 264, "words": 0}, "head sizes up to 256, not 264"),
        ("8.6", 91200, {"head_dim": 136}, "head sizes up to 128, not 136"),
        ("10.0", 91200, {"head_dim": 136}, "head sizes up to 128, not 136"),
        ("8.9", 91200, {"head_dim": 24, "words": 4}, "up to 3 words of bits at head size 24, not"),
        ("9.0", 91200, {"head_dim": 24, "words": 8}, "up to 3 words of bits at head size 24, not"),
        ("7.5", 91200, {}, "compute capability 8.0 or newer, and this one has 7.5"),
        ("gfx90a", 0, {}, "compute capability 8.0 or newer, and this one has gfx90a"),
        ("8.0", 91001, {}, "a cuDNN other than 9.10.1, whose attention fails"),
        ("10.3", 91002, {}, "needs cuDNN 9.11 or newer, not 9.10.2"),
    ],
)
def test_what_cudnn_does_not_support(gpu, capability, version, change, message):
    """Refused in the same words when traced and beforehand."""
    gpu(capability, version)
    dtype, head_dim, queries, keys, words, segments, *_ = InputSpec(
        "bfloat16", 16, 8, 8, 1, False
    )._replace(**change)
    query, key = struct(dtype, 3, queries, 4, head_dim), struct(dtype, 3, keys, 2, head_dim)
    bits = [struct("uint32", 3, t, words) if words else None for t in (queries, keys)]
    inputs = Inputs(query, key, key, *bits, struct("int32", 3, keys) if segments else None)
    with pytest.raises(ValueError, match=message) as raised:
        jax.eval_shape(lambda inputs: augmented(inputs, 0.5), inputs)
    machine = Machine("gpu", "some GPU", capability)
    assert unsupported_reason(InputSpec.of(inputs), machine) == str(raised.value)


@pytest.mark.parametrize(
    ("capability", "version", "head_dim", "words", "reason"),
    [
        ("8.0", 91200, 128, 1, "on Hopper only .* this GPU has 8.0"),
        ("8.6", 91200, 64, 8, "on Hopper only"),
        ("10.0", 91200, 64, 2, "on Hopper only"),
        ("12.0", 91200, 128, 16, "on Hopper only"),
        ("9.0", 90800, 128, 1, "from 9.10 on, not in 9.8.0"),
        ("9.0", 91200, 128, 5, "up to 256 wide, not 288"),
        ("9.0", 91200, 128, 4, None),
        ("9.0", 91200, 5, 1, None),
    ],
)
def test_where_the_marks_are_a_second_attention(gpu, capability, version, head_dim, words, reason):
    gpu(capability, version)
    spec, machine = InputSpec("bfloat16", head_dim, 16, 16, words, False), Machine.here()
    assert unsupported_reason(spec, machine) is None
    assert stock_kernel(spec, machine) == Stock(cudnn, wide_values=reason is None)
    found = wide_values_unsupported_reason(spec, machine)
    assert (found is None) if reason is None else re.search(reason, found)


@pytest.mark.parametrize(
    ("platform", "dtype", "message"),
    [
        ("tpu", "float16", "takes bfloat16 or float32, not float16"),
        ("tpu", "float32", None),
        ("cpu", "float16", None),
    ],
)
def test_what_other_machines_do_not_support(platform, dtype, message):
    spec = InputSpec(dtype, 5, 16, 16, 1, segments=True)
    reason = unsupported_reason(spec, Machine(platform, "some device", "unknown"))
    assert (reason is None) if message is None else message in reason


@pytest.mark.parametrize(("length", "size"), [(1, 16), (7, 5), (8, 12)])
@pytest.mark.parametrize("wide_values", [True, False])
def test_padding_for_cudnn_changes_nothing(monkeypatch, length, size, wide_values):
    """cuDNN takes even lengths and multiples of 8; the maps of ``xla`` stand in for it."""

    def attend(query, key, value, *, scale, mask_type):
        assert mask_type.name == "CAUSAL"
        assert query.shape[1] % 2 == 0
        assert query.shape[-1] % 8 == value.shape[-1] % 8 == 0
        assert wide_values or value.shape[-1] == key.shape[-1]
        return materialized(query, key, value, None, scale)

    monkeypatch.setattr(fused_attention_stablehlo, "dot_product_attention", attend)
    case = make_case(2, length, length, 6, 3, size, 1, seed=5)
    assert_close(run(case, Stock(cudnn, wide_values)), oracle(case))
    run.clear_cache()


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
    text = export(Stock(splash_attention, True), "tpu", (1, LONG, 4, 2, 128))
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
    gradient, shapes = gradient_and_shapes(Stock(splash_attention, True), (1, 1000, 4, 2, 64))
    compile_for(generation, gradient, *shapes)


@pytest.mark.parametrize("wide_values", [True, False])
def test_lowering_for_cuda(monkeypatch, wide_values):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(
        fused_attention_stablehlo, "check_compute_capability", lambda _: wide_values
    )
    text = export(Stock(cudnn, wide_values), "cuda", (2, LONG, 4, 2, 128))
    for name in CUDNN_CALLS:
        assert len(re.findall(rf"custom_call @{re.escape(name)}\(", text)) == 2 - wide_values
    assert (f"2x{LONG}x2x160" in text) == wide_values  # values with the columns
    assert f"{LONG}x{LONG}" not in text


def test_the_stock_kernel_is_that_of_the_machine(gpu):
    gpu()
    with pytest.raises(ValueError, match="not float32"):
        run(make_case(1, 4, 4, 2, 2, 8, 1), None)
    spec = InputSpec("bfloat16", 8, 4, 4, 1, False)
    for platform, attend in (("tpu", splash_attention), ("cpu", materialized)):
        machine = Machine(platform, "some device", "unknown")
        assert stock_kernel(spec, machine) == Stock(attend, True)
