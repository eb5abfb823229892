"""The model against itself: packing, causality, cache, recomputation, and every config field."""

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.models import (
    KEYS_VALUES,
    CausalLM,
    KVCache,
    Llama3Scaling,
    ModelConfig,
    YarnScaling,
)
from cat_jax.models.unstacked import is_on_one_cpu, unstack_layers

B, T, W = 4, 11, 5
CONFIG = ModelConfig(
    vocab_size=37,
    width=30,
    mlp_width=29,
    num_layers=2,
    num_heads=6,
    num_kv_heads=3,
    head_dim=8,
    rope_theta=300.0,
    norm_eps=0.02,
    qkv_bias=True,
    qk_norm=True,
    rope_scaling=Llama3Scaling(3.0, 0.5, 4.0, 20),
)
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
PRODUCT = r" dot\(|custom-call.*matmul"
IMPLEMENTATIONS = ("xla", "xla_chunked")
RNG = np.random.default_rng(5)
TOKENS_BT = RNG.integers(0, CONFIG.vocab_size, (B, T))
# The conjunction of four random words has few ones, so that the mass is not all of the attention.
BITS = {
    name: np.bitwise_and.reduce(RNG.integers(0, 2**32, (4, B, T, W), np.uint32))
    for name in ("q_bits", "k_bits")
}


def replace(**changes):
    return dataclasses.replace(CONFIG, **changes)


def shapes(config):
    variables = jax.eval_shape(CausalLM(config).init, jax.random.key(0), TOKENS_BT)
    return jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def random_params():
    """Nothing at its initial 0 or 1, so that every parameter shows."""
    leaves, tree = jax.tree.flatten(shapes(CONFIG), is_leaf=lambda x: isinstance(x, tuple))
    rng = np.random.default_rng(11)
    params = tree.unflatten([jnp.float32(0.3 * rng.normal(size=shape) + 0.1) for shape in leaves])
    for name in ("query_norm", "key_norm"):  # large enough for attention that is not flat
        params["layers"]["attention"][name]["scale"] *= 5
    return params


PARAMS = random_params()


@partial(jax.jit, static_argnames="config", compiler_options=QUICK_COMPILE)
def apply(config, tokens_BT=TOKENS_BT, **kwargs):
    return CausalLM(config).apply({"params": PARAMS}, tokens_BT, **kwargs)


@pytest.fixture(scope="module")
def logits_and_aux():
    """The whole batch in one pass, with the annotation bits."""
    return apply(CONFIG, **BITS)


@pytest.fixture
def logits(logits_and_aux):
    return logits_and_aux[0]


@pytest.fixture
def mass(logits_and_aux):
    return logits_and_aux[1].mass


def test_without_bits_there_is_no_mass(logits, mass):
    plain_logits, aux = apply(CONFIG)
    assert aux.mass is None
    np.testing.assert_allclose(plain_logits, logits, rtol=0, atol=1e-6)
    assert mass.shape == (CONFIG.num_layers, B, CONFIG.num_heads, T)
    assert 0.1 < mass.mean() < 0.9


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_packed_segments_equal_the_segments_alone(attention, logits):
    first, config = 4, replace(attention=attention)
    positions_BT = np.broadcast_to(np.r_[:first, : T - first], (B, T))
    segments_BT = np.broadcast_to(np.int32(np.arange(T) >= first), (B, T))
    packed, packed_aux = apply(config, segment_ids=segments_BT, positions=positions_BT, **BITS)
    for part in (slice(first), slice(first, None)):
        bits = {name: x[:, part] for name, x in BITS.items()}
        alone, alone_aux = apply(config, TOKENS_BT[:, part], **bits)
        np.testing.assert_allclose(packed[:, part], alone, rtol=0, atol=1e-5)
        np.testing.assert_allclose(packed_aux.mass[..., part], alone_aux.mass, rtol=0, atol=1e-6)
    assert np.abs(packed[:, first:] - logits[:, first:]).max() > 0.1


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_the_future_is_not_read(attention):
    changed_BT = TOKENS_BT.copy()
    changed_BT[:, 7] = (changed_BT[:, 7] + 1) % CONFIG.vocab_size
    config = replace(attention=attention)
    before, after = apply(config)[0], apply(config, changed_BT)[0]
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (np.abs(before - after)[:, 7:].max(-1) > 1e-3).all()


def test_only_relative_positions_matter(logits):
    shifted, _ = apply(CONFIG, positions=np.arange(T)[None] + np.arange(B)[:, None])
    np.testing.assert_allclose(shifted, logits, rtol=0, atol=1e-5)
    stretched, _ = apply(CONFIG, positions=np.broadcast_to(2 * np.arange(T), (B, T)))
    assert np.abs(stretched - logits).max() > 0.1


@pytest.mark.parametrize("unstacked", [False, True])
def test_a_cache_continues_prompts_of_different_lengths(logits, unstacked):
    """Each sequence goes on where its own prompt ended; slots behind hold what padding left."""
    lengths_B, longest, slots = np.array([3, 6, 1, 4]), 6, T + 2
    padded_BT = np.where(np.arange(longest) < lengths_B[:, None], TOKENS_BT[:, :longest], 0)
    model = CausalLM(CONFIG)
    _, left = model.apply({"params": PARAMS}, padded_BT, mutable=[KEYS_VALUES])
    taken = left[KEYS_VALUES]["layers"]["attention"]
    room = [(0, 0)] * 3 + [(0, slots - longest), (0, 0)]
    cache = KVCache(*(jnp.pad(taken[x].swapaxes(2, 3), room) for x in ("key", "value")))
    params = PARAMS
    if unstacked:
        params = unstack_layers(PARAMS)
        cache = tuple(
            KVCache(*layer) for layer in zip(cache.key_BGSC, cache.value_BGSC, strict=True)
        )
    extend = jax.jit(lambda *given: model.apply({"params": params}, *given, method="extend"))
    for at_B in lengths_B + np.arange(T - longest)[:, None]:
        step_BV, cache = extend(TOKENS_BT[np.arange(B), at_B], at_B, cache)
        np.testing.assert_allclose(step_BV, logits[np.arange(B), at_B], rtol=0, atol=1e-5)


def test_unstacked_layers_are_views():
    """The two rows of 2 x 16 floats begin at multiples of 64 bytes; those of 3 must be copied."""
    params = {
        "layers": {"a": jnp.arange(64.0).reshape(2, 2, 16), "b": jnp.arange(6.0).reshape(2, 3)}
    }
    params["layers"]["c"] = jnp.arange(64, dtype=jnp.bfloat16).reshape(2, 32)
    layers = unstack_layers(params)["layers"]
    for name, stacked in params["layers"].items():
        for n, layer in enumerate(layers):
            np.testing.assert_array_equal(layer[name], stacked[n])
    for name in "ac":
        start = params["layers"][name].unsafe_buffer_pointer()
        size = params["layers"][name][0].nbytes
        pointers = [layer[name].unsafe_buffer_pointer() for layer in layers]
        assert pointers == [start, start + size]
    assert is_on_one_cpu(params)
    assert not is_on_one_cpu({"layers": np.zeros(3)})


def test_parameters_are_given_back_after_views_of_them():
    params = {"layers": {"a": jnp.arange(64.0).reshape(2, 32)}}
    layers = unstack_layers(params)["layers"]
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(params)
    np.testing.assert_array_equal(layers[1]["a"], np.arange(32.0, 64.0))
    again = {"layers": {"a": jnp.arange(64.0).reshape(2, 32)}}
    unstack_layers(again)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(again)
    assert again["layers"]["a"].is_deleted()


@partial(jax.jit, static_argnames="config", compiler_options=QUICK_COMPILE)
def everything(params, config):
    """Loss, outputs and maps, and the gradients."""

    def loss_of(params):
        variables = {"params": params}
        (logits_BTV, aux), taps = CausalLM(config).apply(
            variables, TOKENS_BT, mutable=["attention_maps"], **BITS
        )
        # Squares, so that the cotangents differ from entry to entry.
        return (logits_BTV**2).mean() + (aux.mass**2).sum(), (logits_BTV, aux.mass, taps)

    return jax.value_and_grad(loss_of, has_aux=True)(params)


@pytest.mark.parametrize(
    ("attention", "remat"), [("xla", "full"), ("xla_chunked", "full"), ("xla_chunked", "attention")]
)
@pytest.mark.parametrize("scan", [True, False])
def test_remat_changes_no_number(attention, remat, scan):
    plain = everything(PARAMS, replace(attention=attention))
    recomputed = everything(PARAMS, replace(attention=attention, scan=scan, remat=remat))
    assert jax.tree.structure(plain) == jax.tree.structure(recomputed)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_remat_recomputes_what_it_says():
    """A loop is a pass of the attention kernel: a forward one and a backward one are needed."""
    loops, products = {}, {}
    for remat in ("none", "full", "attention"):
        program = everything.trace(PARAMS, replace(attention="xla_chunked", remat=remat)).jaxpr
        loops[remat] = str(program).count(" while[")
        products[remat] = str(program).count(" dot_general[")
    assert loops == {"none": 2, "full": 3, "attention": 2}
    assert products["none"] < products["attention"] < products["full"]


@pytest.mark.parametrize("attention", ["xla", "augmented"])
def test_attention_that_leaves_nothing_to_keep(attention):
    with pytest.raises(InputError, match=f'attention "{attention}" leaves nothing: take remat'):
        replace(attention=attention, remat="attention")


def test_scan_and_remat_reach_the_program():
    """A loop only where asked, and unrolled layers are recomputed too: more matrix products."""

    def program(**changes):
        return everything.lower(PARAMS, replace(**changes))

    assert "stablehlo.while" in program(scan=True).as_text()
    assert "stablehlo.while" not in program(scan=False).as_text()
    plain, recomputed = (
        len(re.findall(PRODUCT, program(scan=False, remat=remat).compile().as_text()))
        for remat in ("none", "full")
    )
    assert recomputed > plain > 0


OTHER_MATHS = {
    "rope_theta": 5.0,
    "norm_eps": 1e-5,
    "qkv_bias": False,
    "qk_norm": False,
    "rope_scaling": None,
    "tie_embeddings": True,
    "dtype": "bfloat16",
}
OTHER_SHAPES = {
    "vocab_size": 41,
    "width": 36,
    "mlp_width": 31,
    "num_layers": 3,
    "num_heads": 9,
    "num_kv_heads": 2,
    "head_dim": 10,
}
SAME_NUMBERS = {"attention": "xla_chunked", "scan": False, "remat": "full"}


def test_every_field_is_tested():
    tested = OTHER_MATHS.keys() | OTHER_SHAPES.keys() | SAME_NUMBERS.keys() | {"max_positions"}
    assert tested == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("field", OTHER_MATHS)
def test_field_changes_the_output(field, logits):
    others, aux = apply(replace(**{field: OTHER_MATHS[field]}), **BITS)
    assert others.dtype == aux.mass.dtype == jnp.float32
    difference = np.abs(others - logits).max()
    if field == "dtype":
        assert 1e-3 < difference < 0.05 * np.abs(logits).max()
    else:
        assert difference > 0.1


@pytest.mark.parametrize("field", OTHER_SHAPES)
def test_field_changes_the_parameters(field):
    assert shapes(replace(**{field: OTHER_SHAPES[field]})) != shapes(CONFIG)


@pytest.mark.parametrize("field", SAME_NUMBERS)
def test_field_changes_no_number(field, logits, mass):
    others, aux = apply(replace(**{field: SAME_NUMBERS[field]}), **BITS)
    np.testing.assert_allclose(others, logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(aux.mass, mass, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 4}, "must divide num_heads"),
        ({"head_dim": 7}, "must be even"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
    ],
)
def test_impossible_shapes(changes, message):
    with pytest.raises(InputError, match=message):
        replace(**changes)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 4, 8192), "greater than 0"),
        ((8, 0, 4, 8192), "greater than 0"),
        ((8, 1, 4, "8192"), "greater than 0"),
        ((8, 4, 4, 8192), "low_freq_factor must be less"),
    ],
)
def test_impossible_scaling(numbers, message):
    with pytest.raises(InputError, match=message):
        Llama3Scaling(*numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((math.nan, 64), "factor must be a number greater than 0"),
        ((4, math.inf), "original_max_positions must be"),
        ((4, 64, 0.0), "attention_factor must be"),
        ((4, 64, None, 1, 1), "beta_slow must be less"),
    ],
)
def test_impossible_yarn(numbers, message):
    with pytest.raises(InputError, match=message):
        YarnScaling(*numbers)
