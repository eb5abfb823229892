"""Edited attention and patched activations against torch, with masks and hooks of its own."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import TOKENS_BT, make

from cat_jax.analysis import attention_maps
from cat_jax.data.bitset import decode, encode_mask
from cat_jax.errors import InputError
from cat_jax.models import (
    CausalLM,
    KVCache,
    Patch,
    activation_patches,
    attention_edits,
    load_pretrained,
    read_activations,
)
from cat_jax.models.attention import MAPS
from pallas_kernels import biased_attention, causal_mass_attention

B, T, V, D, F, N, H, G, C = 2, 11, 37, 30, 29, 3, 6, 3, 8
RNG = np.random.default_rng(4)
TOKENS = RNG.integers(0, V, (B, T))
MASK = np.tril(RNG.random((B, T, T)) < 0.3)
MASK[0, 0, 0] = MASK[1, 5, :6] = True  # queries that lose all their keys
GATES = {
    "knock-out": np.where(RNG.random((N, H)) < 0.5, -np.inf, 0.0),
    "steering": np.log(RNG.uniform(0.01, 20.0, (N, H))),
    "both": np.where(RNG.random((N, H)) < 0.3, -np.inf, RNG.normal(size=(N, H))),
}


def bits_of(mask_BTT):
    """Queries and keys of any masks, [B, T, W] with as many words as the largest needs."""
    found = [encode_mask(mask_TT) for mask_TT in mask_BTT]
    words = max(q_bits.shape[1] for q_bits, _ in found)
    widths = [[(0, 0), (0, words - q_bits.shape[1])] for q_bits, _ in found]
    return tuple(
        np.stack([np.pad(pair[side], w) for pair, w in zip(found, widths, strict=True)])
        for side in (0, 1)
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A torch model with all sizes different, and the same in our terms."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=N,
            num_attention_heads=H,
            num_key_value_heads=G,
            head_dim=C,
            attn_implementation="eager",
        )
    )
    generator = torch.Generator().manual_seed(7)
    for parameter in theirs.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    config, params = load_pretrained(folder)
    return theirs.eval(), CausalLM(config), params


def torch_logits(model, hooks, tokens=TOKENS):
    """Logits while modules are hooked, by (module, pre-hook with keywords or hook)."""
    torch = pytest.importorskip("torch")
    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        if is_before
        else module.register_forward_hook(hook)
        for module, is_before, hook in hooks
    ]
    try:
        with torch.no_grad():
            return model(torch.tensor(tokens), use_cache=False).logits.numpy()
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", GATES)
def test_edits_are_an_additive_mask_in_torch(both, name):
    torch = pytest.importorskip("torch")
    theirs, model, params = both
    gate_NH, lowest = GATES[name], torch.finfo(torch.float32).min
    marked = torch.tensor(MASK)
    hooks = []
    for n, layer in enumerate(theirs.model.layers):
        gate = torch.tensor(gate_NH[n], dtype=torch.float32)[None, :, None, None]
        bias = torch.where(marked[:, None], gate.clamp(min=lowest), torch.zeros(()))
        causal = torch.tril(torch.ones(T, T, dtype=torch.bool))
        bias = torch.where(causal, bias, torch.full((), -torch.inf))
        # Torch spreads a row of equal, very low scores over its keys; ours attends to none.
        empty = ((bias <= lowest) | ~causal).all(-1)

        def mask(module, args, options, bias=bias):
            return args, options | {"attention_mask": bias}

        def silence(module, args, options, empty=empty):
            out = args[0].view(B, T, H, C)
            return (out.masked_fill(empty.mT[..., None], 0.0).view(B, T, H * C),), options

        hooks += [(layer.self_attn, True, mask), (layer.self_attn.o_proj, True, silence)]
        if name == "knock-out":
            assert empty.any() == bool((gate_NH[n] == -np.inf).any())
    expected = torch_logits(theirs, hooks)
    edits = attention_edits(gate_NH, *bits_of(MASK))
    logits, _ = model.apply({"params": params} | edits, TOKENS)
    plain, _ = model.apply({"params": params}, TOKENS)
    assert np.abs(logits - plain).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)


def test_maps_and_mass_are_those_of_the_edited_attention():
    """Softmax over edges scaled by exp(gate), from the unedited map of the first layer."""
    config, params = make("llama")
    model = CausalLM(config)
    rng = np.random.default_rng(1)
    batch, length = TOKENS_BT.shape
    mask = np.tril(rng.random((batch, length, length)) < 0.4)
    gate = rng.normal(size=(config.num_layers, config.num_heads))
    gate[0, 1] = -np.inf
    q_bits, k_bits = bits_of(mask)
    (_, aux), taps = model.apply(
        {"params": params} | attention_edits(gate, q_bits, k_bits),
        TOKENS_BT,
        q_bits=q_bits,
        k_bits=k_bits,
        mutable=[MAPS],
    )
    maps = np.asarray(taps[MAPS]["layers"]["attention"]["probs"])
    plain = np.asarray(attention_maps(model, params, TOKENS_BT))[0]
    weighted = plain * np.where(mask[:, None], np.exp(gate[0])[None, :, None, None], 1.0)
    total = weighted.sum(-1, keepdims=True)
    expected = np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)
    assert (total == 0).any()
    np.testing.assert_allclose(maps[0], expected, atol=1e-5)
    np.testing.assert_allclose(aux.mass, (maps * mask[:, None]).sum(-1), atol=1e-6)
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_without_edits_the_program_has_no_trace_of_them(attention, monkeypatch):
    config, params = make("llama")
    model = CausalLM(dataclasses.replace(config, attention=attention))
    q_bits, k_bits = bits_of(np.tril(np.ones((2, 9, 9), bool)))

    def program():
        run = partial(model.apply, q_bits=q_bits, k_bits=k_bits)
        return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(run)({"params": params}, TOKENS_BT)))

    with_hooks = program()
    monkeypatch.setattr("cat_jax.models.attention.score_bias", lambda module: None)
    for place in ("attention", "transformer"):
        monkeypatch.setattr(f"cat_jax.models.{place}.patched", lambda module, name, x: x)
    jax.clear_caches()
    assert program() == with_hooks
    gate = np.zeros((config.num_layers, config.num_heads))
    monkeypatch.undo()
    edited, _ = model.apply({"params": params} | attention_edits(gate, q_bits, k_bits), TOKENS_BT)
    plain, _ = model.apply({"params": params}, TOKENS_BT)
    np.testing.assert_allclose(edited, plain, atol=2e-5)


def test_gradients_through_edits_are_finite_differences():
    config, params = make("llama")
    model = CausalLM(dataclasses.replace(config, remat="full"))
    mask = np.tril(np.random.default_rng(5).random((2, 9, 9)) < 0.5)
    mask[0, 0, 0] = True
    bits = bits_of(mask)
    gate = np.random.default_rng(6).normal(size=(config.num_layers, config.num_heads))
    gate[1, 2] = -np.inf

    @jax.jit
    def loss(gate, params):
        logits, _ = model.apply({"params": params} | attention_edits(gate, *bits), TOKENS_BT)
        return (jax.nn.log_softmax(logits)[..., 3]).mean()

    by_gate, by_params = jax.grad(loss, argnums=(0, 1))(jnp.asarray(gate), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((by_gate, by_params)))
    assert by_gate[1, 2] == 0  # a knocked-out edge stays so
    step = 1e-2
    for n, h in [(0, 1), (1, 0), (2, 5)]:
        moved = np.zeros_like(gate)
        moved[n, h] = step
        slope = (loss(gate + moved, params) - loss(gate - moved, params)) / (2 * step)
        assert abs(by_gate[n, h]) > 1e-4
        np.testing.assert_allclose(by_gate[n, h], slope, rtol=0.02, atol=3e-5)
    kernel = by_params["layers"]["attention"]["query"]["kernel"]
    direction = jax.tree.map(jnp.zeros_like, params)
    direction["layers"]["attention"]["query"]["kernel"] = jnp.sign(kernel)

    def shifted(scale):
        return loss(gate, jax.tree.map(lambda p, d: p + scale * d, params, direction))

    slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3
    np.testing.assert_allclose(jnp.abs(kernel).sum(), slope, rtol=0.02)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_bias_hides_and_weighs_like_a_loop(seed, has_segments):
    """Query by query: exp of scores plus bias over the keys that are seen."""
    rng = np.random.default_rng(seed)
    query, key, value = (
        rng.normal(size=(2, 5, heads, 3)).astype(np.float32) for heads in (4, 2, 2)
    )
    bias = rng.normal(size=(2, 4, 5, 5)).astype(np.float32)
    bias[rng.random(bias.shape) < 0.5] = -np.inf
    segments = np.sort(rng.integers(0, 2, (2, 5)), axis=1).astype(np.int32)
    segments = segments if has_segments else None
    mask = rng.random((2, 5, 5)) < 0.5
    q_bits, k_bits = bits_of(mask)
    out, mass = biased_attention(query, key, value, bias, q_bits, k_bits, segment_ids=segments)
    for b, h, i in np.ndindex(2, 4, 5):
        seen = [
            j
            for j in range(i + 1)
            if bias[b, h, i, j] > -np.inf and (segments is None or segments[b, i] == segments[b, j])
        ]
        scores = [query[b, i, h] @ key[b, j, h // 2] / 3**0.5 + bias[b, h, i, j] for j in seen]
        weights = np.exp(scores) / np.exp(scores).sum() if seen else np.array([])
        expected = sum((w * value[b, j, h // 2] for w, j in zip(weights, seen, strict=True)), 0)
        np.testing.assert_allclose(out[b, i, h], expected, atol=1e-5)
        on_marked = sum(w for w, j in zip(weights, seen, strict=True) if mask[b, i, j])
        np.testing.assert_allclose(mass[b, h, i], on_marked, atol=1e-5)
    plain, _ = causal_mass_attention(query, key, value, None, None, segment_ids=segments)
    unbiased, _ = biased_attention(query, key, value, 0 * np.nan_to_num(bias), segment_ids=segments)
    np.testing.assert_allclose(unbiased, plain, atol=1e-6)


def test_bits_of_the_tests_are_their_masks():
    q_bits, k_bits = bits_of(MASK)
    for b in range(B):
        np.testing.assert_array_equal(decode(q_bits[b], k_bits[b]), MASK[b])


OTHER = RNG.integers(0, V, (B, T))


def test_patches_are_hooks_in_torch(both):
    """Layer 1's stream and two heads of layer 0 and 2, from the pass over other tokens."""
    torch = pytest.importorskip("torch")
    theirs, model, params = both
    stream = {}

    def keep(name, before):
        def hook(module, args, *rest):
            stream[name] = (args[0] if before else rest[0]).clone()

        return hook

    layers = theirs.model.layers
    hooks = [(layers[1], False, keep("residual", False))]
    for n in (0, 2):
        hooks.append((layers[n].self_attn.o_proj, True, keep(n, True)))
    torch_logits(theirs, hooks, OTHER)

    where_BT = RNG.random((B, T)) < 0.4
    where_BTH = {0: RNG.random((B, T, H)) < 0.3, 2: RNG.random((B, T, H)) < 0.3}

    def put_residual(module, args, out):
        return torch.where(torch.tensor(where_BT)[..., None], stream["residual"], out)

    def put_heads(n):
        def hook(module, args, options):
            old, new = args[0].view(B, T, H, C), stream[n].view(B, T, H, C)
            chosen = torch.tensor(where_BTH[n])[..., None]
            return (torch.where(chosen, new, old).view(B, T, H * C),), options

        return hook

    expected = torch_logits(
        theirs,
        [(layers[1], False, put_residual)]
        + [(layers[n].self_attn.o_proj, True, put_heads(n)) for n in (0, 2)],
    )
    source = read_activations(model, params, OTHER)
    assert source.residual_NBTD.shape == (N, B, T, D)
    assert source.heads_NBTHC.shape == (N, B, T, H, C)
    np.testing.assert_allclose(source.residual_NBTD[1], stream["residual"].numpy(), atol=1e-4)
    residual = np.zeros((N, B, T), bool)
    residual[1] = where_BT
    heads = np.zeros((N, B, T, H), bool)
    heads[0], heads[2] = where_BTH[0], where_BTH[2]
    patches = activation_patches(
        residual=Patch(residual, source.residual_NBTD), heads=Patch(heads, source.heads_NBTHC)
    )
    logits, _ = jax.jit(model.apply)({"params": params} | patches, TOKENS)
    plain, _ = model.apply({"params": params}, TOKENS)
    assert np.abs(logits - plain).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)


def test_the_tap_has_what_patches_leave():
    config, params = make("qwen2")
    model = CausalLM(config)
    source = read_activations(model, params, TOKENS_BT[:, ::-1])
    where = np.zeros((config.num_layers, 1, 1), bool)
    where[-1] = True
    patches = activation_patches(residual=Patch(where, source.residual_NBTD))
    _, taps = model.apply({"params": params} | patches, TOKENS_BT, mutable=["activations"])
    found = taps["activations"]["layers"]["residual"]
    np.testing.assert_array_equal(found[-1], source.residual_NBTD[-1])
    own = read_activations(model, params, TOKENS_BT).residual_NBTD
    np.testing.assert_allclose(found[:-1], own[:-1], atol=1e-5)


def test_bad_interventions_are_sentences():
    config, params = make("llama")
    bits = bits_of(np.tril(np.ones((1, 4, 4), bool)))
    with pytest.raises(InputError, match=r"one number by layer and head, \[N, H\], got \(3,\)"):
        attention_edits(np.zeros(3), *bits)
    for bad in (np.inf, np.nan):
        with pytest.raises(InputError, match="NaN or \\+inf"):
            attention_edits(np.full((3, 6), bad), *bits)
    with pytest.raises(InputError, match="3 axes of where to put it and 4 of values"):
        activation_patches(residual=Patch(np.ones((1, 2), bool), np.ones((1, 2, 3))))
    cache = KVCache(*(jnp.zeros((3, 1, 3, 4, 8)) for _ in range(2)))
    edits = attention_edits(np.zeros((3, 6)), *bits)
    with pytest.raises(InputError, match="decoding with a cache takes no attention_edits"):
        CausalLM(config).apply(
            {"params": params} | edits, np.array([1]), np.array([0]), cache, method="extend"
        )
