"""Logits, maps, causal mass and gradients against torch, on models with every size different."""

import copy
import dataclasses
import json
from functools import cache, partial
from itertools import product
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
TOLERANCE = {"logits": 0.1, "maps": 0.02}
"""Of bfloat16 against float32; the logits here reach 4."""

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": N,
    "num_attention_heads": H,
    "head_dim": C,
    "rms_norm_eps": 0.02,
    "attn_implementation": "eager",
}
ROPE = {"rope_type": "default", "rope_theta": 300.0}
# With 4 wavelengths from 6 to 1500, one is kept, two are blended and one is divided.
SCALED = ROPE | {
    "rope_type": "llama3",
    "factor": 5.0,
    "low_freq_factor": 0.5,
    "high_freq_factor": 8.0,
    "original_max_position_embeddings": 256,
}
# Of its 4 pairs one is kept, two are blended and one is divided.
YARN = ROPE | {
    "rope_type": "yarn",
    "factor": 5.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 24.0,
    "beta_slow": 0.5,
}
FAMILIES = {
    "llama": ("Llama", ROPE),
    "llama3": ("Llama", SCALED),
    "linear": ("Llama", ROPE | {"rope_type": "linear", "factor": 2.5}),
    "mistral": ("Mistral", ROPE),
    "qwen2": ("Qwen2", ROPE),
    "qwen2-yarn": ("Qwen2", YARN),
    "qwen3": ("Qwen3", ROPE),
    "qwen3-yarn": ("Qwen3", YARN | {"attention_factor": 0.8, "truncate": False}),
}
GROUPS = {"mha": H, "gqa": 3, "mqa": 1}
QUICK_CASES = (
    ("llama", "mha", "tied", "xla", "scan"),
    ("llama3", "gqa", "untied", "xla_chunked", "scan"),
    ("qwen2", "gqa", "tied", "xla", "unrolled"),
    ("qwen3", "mqa", "untied", "xla_chunked", "scan"),
    ("linear", "gqa", "tied", "xla", "scan"),
    ("mistral", "gqa", "untied", "xla", "scan"),
    ("qwen2-yarn", "mha", "untied", "xla", "scan"),
    ("qwen3-yarn", "gqa", "tied", "xla_chunked", "scan"),
)
# Rotary scaling and names of families are everywhere the same code.
CASES = [
    *product(
        ("llama", "llama3", "qwen2", "qwen3"),
        GROUPS,
        ("tied", "untied"),
        ("xla", "xla_chunked"),
        ("scan", "unrolled"),
    ),
    *QUICK_CASES[4:],
]


def torch_model(family, grouping, tied):
    name, rope = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(
        num_key_value_heads=GROUPS[grouping],
        tie_word_embeddings=tied == "tied",
        rope_parameters=dict(rope),
        **SIZES,
        **({"sliding_window": None} if name == "Mistral" else {}),
    )
    return randomize(getattr(transformers, f"{name}ForCausalLM")(config))


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
    combined = next_token + GAMMA * torch_guidance(maps_NBHTT)
    return SimpleNamespace(
        losses=(next_token.item(), combined.item()),
        logits=output.logits.detach().numpy(),
        maps=maps_NBHTT.detach().numpy(),
        grads=[
            torch_gradient(model, loss, folder / str(loss.item()))
            for loss in (next_token, combined)
        ],
    )


def torch_gradient(model, loss, folder):
    """Gradients travel as if they were weights, to arrive in our layout."""
    grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    carrier = copy.deepcopy(model)
    for parameter, grad in zip(carrier.parameters(), grads, strict=True):
        parameter.data = grad
    carrier.save_pretrained(folder)
    return load_pretrained(folder)[1]


def run_jax(config, params, gradients_of=(0, 1)):
    """What torch computes above; gradients of the first or second loss alone compile faster."""

    def losses_of(params):
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
        return (next_token, next_token + GAMMA * guidance), (logits_BTV, aux.mass, maps)

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def compute(params):
        losses, pull_back, outputs = jax.vjp(losses_of, params, has_aux=True)
        one_hot = ((1.0, 0.0), (0.0, 1.0))
        return losses, outputs, {n: pull_back(one_hot[n])[0] for n in gradients_of}

    losses, (logits, mass, maps), grads = compute(params)
    return SimpleNamespace(losses=losses, logits=logits, mass=mass, maps=maps, grads=grads)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What torch computes for a model, and the model in our terms."""

    @cache
    def make(family, grouping, tied):
        model = torch_model(family, grouping, tied)
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder)
        config, params = load_pretrained(folder)
        assert (config.num_kv_heads, config.tie_embeddings) == (GROUPS[grouping], tied == "tied")
        assert (config.rope_scaling is not None) == (FAMILIES[family][1] is not ROPE)
        return run_torch(model, tmp_path_factory.mktemp("grads")), config, params

    return make


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, marks=() if case in QUICK_CASES else pytest.mark.slow, id="-".join(case))
        for case in CASES
    ],
)
def both(request, reference):
    """What torch and what we compute, for one model and one way to compute it."""
    *model, attention, layers = request.param
    expected, config, params = reference(*model)
    is_default = (attention, layers) == ("xla", "scan")
    config = dataclasses.replace(config, attention=attention, scan=layers == "scan")
    # The combined loss contains the other one: elsewhere its gradient stands for both.
    return expected, run_jax(config, params, (0, 1) if is_default else (1,))


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


def test_losses_and_the_gradient_of_every_parameter(both):
    expected, actual = both
    np.testing.assert_allclose(actual.losses, expected.losses, rtol=1e-5)
    for loss, ours in actual.grads.items():
        theirs = expected.grads[loss]
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for (path, our), their in zip(
            jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
        ):
            if "bias" not in str(path):
                assert np.abs(their).max() > 1e-3, path
            np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5, err_msg=str(path))


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def torch_outputs(folder, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    )
    with torch.no_grad():
        output = model(torch.tensor(BATCH.tokens_BT), output_attentions=True)
    return output.logits.float().numpy(), torch.stack(output.attentions).float().numpy()


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16(family, attention, tmp_path):
    """Weights that bfloat16 holds exactly: what is off is the arithmetic, ours against torch's."""
    torch_model(family, "gqa", "untied").to(torch.bfloat16).save_pretrained(tmp_path)
    config, params = load_pretrained(
        tmp_path, attention=attention, dtype="bfloat16", param_dtype="bfloat16"
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    apply = partial(CausalLM(config).apply, mutable=["attention_maps"])
    (logits, _), taps = jax.jit(apply)({"params": params}, BATCH.tokens_BT)
    ours = logits, taps["attention_maps"]["layers"]["attention"]["probs"]
    truths = torch_outputs(tmp_path, torch.float32)
    theirs = torch_outputs(tmp_path, torch.bfloat16)
    for name, our, their, truth in zip(("logits", "maps"), ours, theirs, truths, strict=True):
        assert rms(our - truth) <= 1.5 * rms(their - truth)
        assert np.abs(our - truth).max() <= TOLERANCE[name]


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
