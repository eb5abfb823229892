"""Logits, maps, causal mass and gradients against torch, on models with every size different."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cat_jax.losses import attention_guidance_loss, next_token_loss
from cat_jax.models import CausalLM, load_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

B, T, V, D, F, N, H, C, W = 4, 11, 37, 30, 29, 2, 6, 8, 5
EFFECT_BITS = (0, 31, 32, 100, 159)  # both ends of words and several words
GAMMA, ALPHA = 0.7, 1.1

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": N,
    "num_attention_heads": H,
    "head_dim": C,
    "attn_implementation": "eager",
}


def llama(**kwargs):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            rms_norm_eps=0.02,
            rope_parameters={"rope_type": "default", "rope_theta": 300.0},
            **SIZES,
            **kwargs,
        )
    )


def qwen2(**kwargs):
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES, **kwargs))


# Families alternate: each meets every grouping, tied and untied embeddings.
CASES = {
    "llama-mha-tied": (llama, 6, True),
    "qwen2-mha-untied": (qwen2, 6, False),
    "qwen2-gqa-tied": (qwen2, 3, True),
    "llama-gqa-untied": (llama, 3, False),
    "llama-mqa-tied": (llama, 1, True),
    "qwen2-mqa-untied": (qwen2, 1, False),
}


def randomize(model):
    """Biases start at 0 and norm scales at 1, where errors in them would not show."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            parameter.data = 1 + 0.3 * noise
        else:
            parameter.data = noise / (parameter.shape[-1] ** 0.5)
    return model


def make_batch():
    """Tokens, target mask, annotation bits, and the mask [B, T, T] they stand for."""
    rng = np.random.default_rng(3)
    mask_BTT = np.zeros((B, T, T), bool)
    q_bits_BTW, k_bits_BTW = np.zeros((2, B, T, W), np.uint32)
    for bit in EFFECT_BITS:
        rows_BT, keys_BT = rng.random((2, B, T)) < 0.15
        mask_BTT |= rows_BT[:, :, None] & keys_BT[:, None, :]
        flag = np.uint32(1 << bit % 32)
        q_bits_BTW[:, :, bit // 32] |= np.where(rows_BT, flag, np.uint32(0))
        k_bits_BTW[:, :, bit // 32] |= np.where(keys_BT, flag, np.uint32(0))
    return SimpleNamespace(
        tokens_BT=rng.integers(0, V, (B, T)),
        target_mask_BT=rng.random((B, T)) < 0.5,
        q_bits_BTW=q_bits_BTW,
        k_bits_BTW=k_bits_BTW,
        mask_BTT=np.tril(mask_BTT),
    )


BATCH = make_batch()


def torch_guidance(maps_NBHTT):
    """The hinge form from its definition: a mean over causes, a mean over the rest, row by row."""
    mean_BTT = maps_NBHTT.mean(dim=(0, 2))
    mask_BTT = torch.tensor(BATCH.mask_BTT)
    values = []
    for b in range(B):
        for i in range(T):
            causes, row = mask_BTT[b, i, : i + 1], mean_BTT[b, i, : i + 1]
            if causes.any() and not causes.all():
                ratio = row[causes].mean() / row[~causes].mean()
                values.append(torch.where(ratio >= ALPHA, torch.zeros(()), ALPHA - ratio))
    values = torch.stack(values)
    assert (values == 0).any()
    assert (values > 0).sum() > 5
    return values.mean()


def run_torch(model, folder):
    output = model(torch.tensor(BATCH.tokens_BT), output_attentions=True)
    maps_NBHTT = torch.stack(output.attentions)
    targets = torch.tensor(BATCH.target_mask_BT[:, 1:])
    labels = torch.tensor(BATCH.tokens_BT[:, 1:])
    next_token = torch.nn.functional.cross_entropy(output.logits[:, :-1][targets], labels[targets])
    loss = next_token + GAMMA * torch_guidance(maps_NBHTT)
    loss.backward()
    # Gradients travel as if they were weights, to arrive in our layout.
    for parameter in model.parameters():
        parameter.data = parameter.grad
    model.save_pretrained(folder)
    return SimpleNamespace(
        loss=loss.item(),
        logits=output.logits.detach().numpy(),
        maps=maps_NBHTT.detach().numpy(),
        grads=load_pretrained(folder)[1],
    )


def run_jax(config, params):
    def loss_of(params):
        (logits_BTV, aux), taps = CausalLM(config).apply(
            {"params": params},
            BATCH.tokens_BT,
            q_bits=BATCH.q_bits_BTW,
            k_bits=BATCH.k_bits_BTW,
            mutable=["attention_maps"],
        )
        next_token, _ = next_token_loss(logits_BTV, BATCH.tokens_BT, BATCH.target_mask_BT)
        causal_BT = BATCH.mask_BTT.sum(-1).astype(np.int32)
        visible_BT = np.broadcast_to(np.arange(1, T + 1, dtype=np.int32), (B, T))
        guidance, _ = attention_guidance_loss(aux.mass, causal_BT, visible_BT, alpha=ALPHA)
        maps = taps["attention_maps"]["layers"]["attention"]["probs"]
        return next_token + GAMMA * guidance, (logits_BTV, aux.mass, maps)

    compute = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=QUICK_COMPILE)
    (loss, (logits, mass, maps)), grads = compute(params)
    return SimpleNamespace(loss=loss, logits=logits, mass=mass, maps=maps, grads=grads)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def reference(request, tmp_path_factory):
    family, groups, tied = request.param
    model = randomize(family(num_key_value_heads=groups, tie_word_embeddings=tied))
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    config, params = load_pretrained(folder)
    assert (config.num_kv_heads, config.tie_embeddings) == (groups, tied)
    return SimpleNamespace(
        torch=run_torch(model, tmp_path_factory.mktemp("grads")), config=config, params=params
    )


@pytest.fixture(scope="module", params=["xla", "xla_chunked"])
def both(request, reference):
    """What torch and what we compute, for one model and one implementation of attention."""
    config = dataclasses.replace(reference.config, attention=request.param)
    return reference.torch, run_jax(config, reference.params)


def test_logits(both):
    expected, actual = both
    assert actual.logits.shape == (B, T, V)
    np.testing.assert_allclose(actual.logits, expected.logits, rtol=0, atol=1e-5)


def test_map_of_every_layer(both):
    expected, actual = both
    assert actual.maps.shape == (N, B, H, T, T)
    np.testing.assert_allclose(actual.maps, expected.maps, rtol=0, atol=1e-6)


def test_causal_mass_is_the_map_summed_over_the_mask(both):
    expected, actual = both
    mass_NBHT = (expected.maps * BATCH.mask_BTT[:, None]).sum(-1)
    assert mass_NBHT.max() > 0.5
    np.testing.assert_allclose(actual.mass, mass_NBHT, rtol=0, atol=1e-6)


def test_loss_and_gradient_of_every_parameter(both):
    expected, actual = both
    np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-5)
    assert jax.tree.structure(actual.grads) == jax.tree.structure(expected.grads)
    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(actual.grads), jax.tree.leaves(expected.grads), strict=True
    ):
        assert np.abs(theirs).max() > 1e-3, path
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=str(path))


def test_trained_model(shared):
    folder = shared / "models" / "stories260K"
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    story = json.loads((shared / "golden" / "stories260K_greedy.json").read_text())["greedy_ids"]
    tokens_BT = np.array([story])
    with torch.no_grad():
        expected = model(torch.tensor(tokens_BT)).logits.numpy()
    config, params = load_pretrained(folder)
    logits_BTV, _ = CausalLM(config).apply({"params": params}, tokens_BT)
    # Logits reach 19; torch's own attention implementations differ by 1.5e-5 on these tokens.
    np.testing.assert_allclose(logits_BTV, expected, rtol=0, atol=4e-5)
    assert logits_BTV[0, :-1].argmax(-1).tolist() == story[1:]
