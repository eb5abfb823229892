"""Kernels in int8 against numpy: rounding, products, gradients, and what becomes of them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_models import CONFIG, FAMILIES, TOKENS_BT, make
from safetensors.numpy import load_file, save_file

from cat_jax.errors import InputError
from cat_jax.models import (
    CausalLM,
    Int8Kernel,
    LoraConfig,
    attach_lora,
    dequantize_params,
    init_lora,
    load_language_model,
    load_pretrained,
    merge_lora,
    quantize_params,
    save_adapter,
    save_pretrained,
)
from cat_jax.models.huggingface import tensors
from cat_jax.models.projection import Projection
from cat_jax.models.quantization import channel_scale, has_int8, round_to_int8
from cat_jax.testing import toy_model

B, T, D, H, C = 3, 7, 30, 6, 8
KERNELS = {"query": ((D, H, C), 1), "output": ((H, C, D), 2), "mlp": ((D, 29), 1)}
"""Shape and number of input axes of every kind of kernel."""
LORA = LoraConfig(rank=5, alpha=8.0, dropout=0.0, targets=("q_proj", "o_proj", "down_proj"))
PATHS = {f"layers/attention/{name}/kernel" for name in ("query", "key", "value", "output")}
PATHS |= {f"layers/mlp/{name}/kernel" for name in ("gate", "up", "down")}


def random_int8(kind, seed=0):
    """A kernel in int8, and the matrix [inputs, outputs] that it stands for, in float64."""
    shape, inputs = KERNELS[kind]
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, shape).astype(np.int8)
    scale = np.float32(10.0 ** rng.uniform(-4, 0, shape[inputs:]))
    matrix = (values * np.float64(scale)).reshape(int(np.prod(shape[:inputs])), -1)
    return Int8Kernel(jnp.asarray(values), jnp.asarray(scale)), matrix


@given(
    arrays(
        np.float32,
        st.tuples(*[st.integers(1, 5)] * 3),
        elements=st.one_of(st.just(0.0), st.floats(-(2.0**60), 2.0**60, width=32)),
    ),
    st.sampled_from([(0,), (1,), (0, 1)]),
)
def test_rounding_is_to_the_nearest_of_its_channel(kernel, inputs):
    kernel[np.abs(kernel) < 2.0**-60] = 0
    scale = channel_scale(kernel, inputs)
    values = round_to_int8(kernel, np.expand_dims(scale, inputs))
    assert (values.dtype, scale.dtype) == (np.int8, np.float32)
    exact = np.abs(np.float64(kernel)).max(inputs) / 127
    np.testing.assert_allclose(scale, exact, rtol=3e-7)
    stands_for = values * np.float64(np.expand_dims(scale, inputs))
    bound = np.expand_dims(exact / 2, inputs)
    assert (np.abs(stands_for - kernel) <= bound * (1 + 1e-4)).all()


@pytest.mark.parametrize("size", [0, 1e-44, 1e-40, 1e-37, 3e-36])
def test_channels_of_next_to_nothing_stay_finite(size):
    kernel = np.float32([[0, size], [size, 0], [-size, size], [1, 0]])
    quantised = quantize_params(with_mlp(kernel))["layers"]["mlp"]["up"]["kernel"]
    scale = channel_scale(kernel, (0,))
    values = round_to_int8(kernel, scale[None])
    np.testing.assert_array_equal(quantised.values[0], values)
    assert np.abs(values * np.float64(scale) - kernel)[:, 1].max() <= 2e-36


def with_mlp(kernel):
    """Parameters of one layer with this kernel everywhere."""
    flat = {rule.path: jnp.asarray(kernel)[None] for rule in tensors.KERNELS.values()}
    return unflatten_dict(flat, sep="/")


def test_the_largest_of_a_channel_is_127_and_a_channel_of_zeros_stays():
    kernel = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    kernel[3, 1], kernel[:, 2] = -50, 0
    scale = channel_scale(kernel, (0,))
    values = round_to_int8(kernel, scale[None])
    assert np.abs(values).max(0).tolist() == [127, 127, 0, 127]
    assert values[3, 1] == -127
    assert scale[2] == 0


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_product_and_gradient_are_those_of_the_dense_kernel(kind, dtype, rtol):
    """Of sums in float32, the value is rounded once; the gradient after and before its product."""
    kernel, matrix = random_int8(kind)
    shape, inputs = KERNELS[kind]
    rng = np.random.default_rng(1)
    x, cotangent = (
        rng.standard_normal((B, T, *axes)).astype(dtype).astype(np.float32)
        for axes in (shape[:inputs], shape[inputs:])
    )
    value, pull = jax.vjp(lambda x: kernel(x, dtype), jnp.asarray(x, dtype))
    (gradient,) = pull(jnp.asarray(cotangent, dtype))
    assert value.dtype == gradient.dtype == dtype
    rows, columns = np.float64(x).reshape(B * T, -1), np.float64(cotangent).reshape(B * T, -1)
    for found, one, other, rounded in (
        (value, rows, matrix, 1),
        (gradient, columns, matrix.T, 2),
    ):
        error = np.abs(np.float64(found).reshape(B * T, -1) - one @ other)
        # What float32 sums lose is a share of all that they add.
        assert (error <= rounded * rtol * np.abs(one) @ np.abs(other)).all()
    error = np.abs(np.float64(value).reshape(B * T, -1) - rows @ matrix)
    assert (error <= rtol * np.abs(rows @ matrix) + 1e-6 * np.abs(rows) @ np.abs(matrix)).all()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KERNELS)
def test_a_layer_takes_the_kernel_with_bias(kind, flat):
    kernel, matrix = random_int8(kind)
    shape, inputs = KERNELS[kind]
    bias = np.random.default_rng(2).normal(size=shape[inputs:]).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(B, T, *shape[:inputs])).astype(np.float32)
    layer = Projection(shape[inputs:], inputs, use_bias=True, flat=flat)
    found = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.float64(x).reshape(B * T, -1) @ matrix + bias.reshape(-1)
    np.testing.assert_allclose(found.reshape(B * T, -1), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernels_of_the_layers_are_quantised_and_nothing_else(dtype):
    _, params = make("qwen2", dtype)
    before, after = flatten_dict(params, sep="/"), flatten_dict(quantize_params(params), sep="/")
    assert {path for path, value in after.items() if isinstance(value, Int8Kernel)} == PATHS
    for path, value in after.items():
        if path not in PATHS:
            assert value is before[path]
            continue
        kernel = np.float64(before[path])
        inputs = (1, 2) if path.endswith("output/kernel") else (1,)
        scale = np.abs(kernel).max(inputs, keepdims=True) / 127
        assert (value.values.dtype, value.scale.dtype) == ("int8", "float32")
        np.testing.assert_allclose(value.scale, scale.squeeze(inputs), rtol=3e-7)
        off_by = np.abs(value.values - kernel / scale)
        assert off_by.max() < 0.5001
    again = quantize_params(quantize_params(params))
    jax.tree.map(np.testing.assert_array_equal, again, quantize_params(params))


def test_dequantised_kernels_are_near():
    _, params = make("llama")
    quantised = quantize_params(params)
    back = flatten_dict(dequantize_params(quantised), sep="/")
    assert not has_int8(dequantize_params(quantised))
    for path, value in flatten_dict(params, sep="/").items():
        assert back[path].dtype == "float32"
        scale = np.abs(value).max() / 127
        assert np.abs(back[path] - value).max() <= (0.5001 * scale if path in PATHS else 0)


@partial(jax.jit, static_argnums=0)
def logits(config, params):
    return CausalLM(config).apply({"params": params}, TOKENS_BT)[0]


@pytest.mark.parametrize(
    ("family", "changes"),
    [*((family, {}) for family in FAMILIES), ("llama", {"scan": False, "remat": "full"})],
)
def test_logits_are_those_of_the_dequantised_model_and_near_the_original(family, changes):
    config, params = make(family)
    config = dataclasses.replace(config, **changes)
    quantised = quantize_params(params)
    found = logits(config, quantised)
    np.testing.assert_allclose(
        found, logits(config, dequantize_params(quantised)), rtol=1e-4, atol=1e-4
    )
    exact = logits(config, params)
    error = np.sqrt(np.mean((found - exact) ** 2) / np.var(exact))
    assert 1e-4 < error < 0.05


def adapter_gradient(config, params, adapters):
    def loss(adapters):
        attached = attach_lora(params, adapters, LORA)
        return jnp.sin(CausalLM(config).apply({"params": attached}, TOKENS_BT)[0]).mean()

    return jax.jit(jax.grad(loss))(adapters)


@pytest.mark.parametrize("changes", [{}, {"remat": "full"}, {"scan": False}])
def test_adapters_get_the_gradient_of_the_dequantised_model(changes):
    config, params = make("qwen2")
    config = dataclasses.replace(config, **changes)
    adapters = jax.tree.map(lambda x: x + 0.05, init_lora(jax.random.key(0), config, LORA))
    quantised = quantize_params(params)
    found, expected = (
        adapter_gradient(config, tree, adapters)
        for tree in (quantised, dequantize_params(quantised))
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(other).max() > 1e-5
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def temporary_bytes(config, params):
    adapters = init_lora(jax.random.key(0), config, LORA)

    def loss(params, adapters):
        attached = attach_lora(params, adapters, LORA)
        return CausalLM(config).apply({"params": attached}, TOKENS_BT)[0].mean()

    program = jax.jit(jax.grad(loss, 1)).lower(params, adapters).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_more_than_a_kernel_is_dequantised_at_a_time(remat, dtype):
    """Of seven in 16 layers; copies that were kept for the backward pass would be all of them."""
    config = dataclasses.replace(
        CONFIG, width=120, mlp_width=116, num_layers=16, dtype=dtype, remat=remat
    )
    params = jax.eval_shape(CausalLM(config).init, jax.random.key(0), TOKENS_BT)["params"]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)
    quantised = jax.eval_shape(quantize_params, shapes)
    more = temporary_bytes(config, quantised) - temporary_bytes(config, shapes)
    assert more <= 4 * config.width * config.mlp_width  # XLA for CPUs computes in float32


@pytest.fixture
def folder(tmp_path):
    def write(family, dtype="float32"):
        config, params = make(family, dtype)
        save_pretrained(tmp_path / family, config, params)
        return tmp_path / family, params

    return write


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_quantises_as_parameters_in_memory_are(folder, stored, dtype):
    path, params = folder("qwen2", stored)
    _, found = load_pretrained(path, dtype=dtype, param_dtype="int8")
    expected = quantize_params(params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    found, expected = flatten_dict(found, sep="/"), flatten_dict(expected, sep="/")
    for name, value in found.items():
        if isinstance(value, Int8Kernel):
            jax.tree.map(np.testing.assert_array_equal, value, expected[name])
        else:
            assert value.dtype == dtype
            np.testing.assert_array_equal(value, expected[name].astype(dtype))


def test_a_dtype_of_parameters_that_there_is_not(folder):
    path, _ = folder("llama")
    message = "^param_dtype must be one of float32, bfloat16, int8, stored, got 'int4'$"
    with pytest.raises(InputError, match=message):
        load_pretrained(path, param_dtype="int4")


def test_a_kernel_that_is_not_finite_is_refused_before_it_is_rounded(folder):
    path, _ = folder("llama")
    stored = load_file(path / "model.safetensors")
    stored["model.layers.1.mlp.up_proj.weight"][2, 3] = np.inf
    save_file(stored, path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or"):
        load_pretrained(path, param_dtype="int8")


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_model_is_written_as_the_floats_that_it_stands_for(tmp_path, dtype):
    config, params = make("qwen2")
    quantised = quantize_params(params)
    save_pretrained(tmp_path / "model", config, quantised, dtype=dtype)
    _, found = load_pretrained(tmp_path / "model", param_dtype="stored")
    expected = dequantize_params(quantised)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype or "float32")}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(a.dtype)), found, expected)


def trained(config, lora=LORA):
    adapters = init_lora(jax.random.key(1), config, lora)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), adapters)


def test_adapters_merge_into_float32_and_leave_other_kernels():
    config, params = make("llama")
    adapters, quantised = trained(config), quantize_params(params)
    merged = merge_lora(quantised, adapters, LORA)
    changed = {"layers/attention/query", "layers/attention/output", "layers/mlp/down"}
    for path, value in flatten_dict(merged, sep="/").items():
        assert isinstance(value, Int8Kernel) == (path in PATHS - {f"{x}/kernel" for x in changed})
    expected = merge_lora(dequantize_params(quantised), adapters, LORA)
    jax.tree.map(np.testing.assert_array_equal, dequantize_params(merged), expected)
    np.testing.assert_allclose(
        logits(config, merged),
        logits(config, attach_lora(quantised, adapters, LORA)),
        rtol=1e-3,
        atol=1e-3,
    )


def test_an_adapter_is_read_onto_an_int8_base(tmp_path):
    toy = toy_model()
    config, adapters = toy.model.config, trained(toy.model.config)
    save_pretrained(tmp_path / "base", config, toy.params, toy.tokenizer)
    save_adapter(tmp_path / "adapter", config, adapters, LORA, base=str(tmp_path / "base"))
    found = load_language_model(tmp_path / "adapter", param_dtype="int8")
    form = LoraConfig(LORA.rank, LORA.alpha, LORA.dropout, tuple(sorted(LORA.targets)))
    expected = attach_lora(quantize_params(toy.params), adapters, form)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
