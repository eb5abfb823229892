"""Adapters against torch PEFT: outputs, gradients, merging, and folders both ways."""

import copy
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cat_jax.errors import InputError
from cat_jax.models import (
    CausalLM,
    LoraConfig,
    ModelConfig,
    attach_lora,
    init_lora,
    load_adapter,
    load_pretrained,
    merge_lora,
    save_adapter,
)
from cat_jax.models.projection import LowRank, Projection

pytestmark = [  # of PEFT itself, under transformers 5
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning"),
]

B, T, V, D, F, N, H, G, C, R = 3, 7, 37, 30, 29, 2, 6, 3, 8, 5
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
CONFIG = ModelConfig(V, D, F, N, H, G, C, qkv_bias=True)
LORA = LoraConfig(rank=R, alpha=8.0, dropout=0.0, targets=ALL)
TOKENS_BT = np.random.default_rng(0).integers(0, V, (B, T))
KEYS_BT = np.random.default_rng(1).random((B, T)) < 0.3
"""Keys whose attention is part of the loss, wherever they can be seen."""

FAMILIES = ("Llama", "Qwen2", "Qwen3")


@pytest.fixture(scope="module")
def params():
    return CausalLM(CONFIG).init(jax.random.key(0), TOKENS_BT)["params"]


def trained(config=CONFIG, lora=LORA):
    """Adapters whose b is no longer zero."""
    adapters = init_lora(jax.random.key(1), config, lora)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), adapters)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK_COMPILE)
def logits(config, params):
    return CausalLM(config).apply({"params": params}, TOKENS_BT)[0]


def objective(config, params):
    """Next-token loss plus the mean attention on some keys, so that every target matters."""
    bits = {"q_bits": np.ones((B, T, 1), np.uint32), "k_bits": KEYS_BT[..., None].astype(np.uint32)}
    logits_BTV, aux = CausalLM(config).apply({"params": params}, TOKENS_BT, **bits)
    log_probs = jax.nn.log_softmax(logits_BTV[:, :-1])
    chosen = jnp.take_along_axis(log_probs, TOKENS_BT[:, 1:, None], -1)
    return -chosen.mean() + aux.mass.mean()


@partial(jax.jit, static_argnums=(0, 3), compiler_options=QUICK_COMPILE)
def value_and_gradient(config, params, adapters, lora, seed=None):
    key = None if seed is None else jax.random.key(seed)
    return jax.value_and_grad(
        lambda adapters: objective(config, attach_lora(params, adapters, lora, key))
    )(adapters)


def torch_objective(model, torch):
    output = model(torch.tensor(TOKENS_BT), output_attentions=True)
    targets = torch.tensor(TOKENS_BT[:, 1:])
    next_token = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), targets.flatten()
    )
    maps_NBHTT = torch.stack(output.attentions)
    mass_NBHT = (maps_NBHTT * torch.tensor(KEYS_BT)[None, :, None, None, :]).sum(-1)
    return next_token + mass_NBHT.mean()


def torch_base(family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=N,
        num_attention_heads=H,
        num_key_value_heads=G,
        head_dim=C,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    torch.manual_seed(7)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def peft_model(request, tmp_path_factory):
    """A PEFT model with all targets and b that is not zero, and ours of the same base."""
    peft = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("base")
    base = torch_base(request.param)
    base.save_pretrained(folder)
    form = peft.LoraConfig(r=R, lora_alpha=8, lora_dropout=0.0, target_modules=list(ALL))
    model = peft.get_peft_model(base, form).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape)
    return model, folder, *load_pretrained(folder)


def save_peft(model, folder):
    model.save_pretrained(folder)
    return folder


def test_outputs_and_gradients_equal_peft(peft_model, tmp_path):
    import torch

    model, _, config, params = peft_model
    lora, adapters = load_adapter(save_peft(model, tmp_path / "weights"), config)
    assert (lora.rank, lora.alpha, set(lora.targets)) == (R, 8.0, set(ALL))
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT)).logits.numpy()
        with model.disable_adapter():
            plain = model(torch.tensor(TOKENS_BT)).logits.numpy()
    assert np.abs(expected - plain).max() > 0.1
    actual = logits(config, attach_lora(params, adapters, lora))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)

    loss = torch_objective(model, torch)
    loss.backward()
    for parameter in model.parameters():  # the gradients travel as weights
        if parameter.requires_grad:
            parameter.data, parameter.grad = parameter.grad, parameter.data
    _, expected = load_adapter(save_peft(model, tmp_path / "gradients"), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data, parameter.grad = parameter.grad, None
    value, gradient = value_and_gradient(config, params, adapters, lora)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    theirs = flatten_dict(expected, sep="/")
    for path, ours in flatten_dict(gradient, sep="/").items():
        assert np.abs(theirs[path]).max() > 1e-5, path
        np.testing.assert_allclose(ours, theirs[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_merging_equals_merge_and_unload(peft_model, tmp_path):
    model, _, config, params = peft_model
    lora, adapters = load_adapter(save_peft(model, tmp_path / "adapter"), config)
    copy.deepcopy(model).merge_and_unload().save_pretrained(tmp_path / "merged")
    _, expected = load_pretrained(tmp_path / "merged")
    merged = merge_lora(params, adapters, lora)
    changed = jax.tree.map(lambda a, b: np.abs(a - b).max(), merged, params)
    kernels = [f"attention/{name}" for name in ("query", "key", "value", "output")]
    kernels += [f"mlp/{name}" for name in ("gate", "up", "down")]
    assert {path for path, x in flatten_dict(changed, sep="/").items() if x > 0.01} == {
        f"layers/{name}/kernel" for name in kernels
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)
    np.testing.assert_allclose(
        logits(config, merged), logits(config, attach_lora(params, adapters, lora)), atol=2e-5
    )


@pytest.mark.parametrize("targets", [ALL, ("o_proj", "q_proj")])
def test_peft_loads_what_we_save(targets, tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    base = torch_base("Llama")
    base.save_pretrained(tmp_path / "base")
    config, params = load_pretrained(tmp_path / "base")
    lora = LoraConfig(rank=R, alpha=6.5, dropout=0.25, targets=targets)
    adapters = trained(config, lora)
    save_adapter(tmp_path / "adapter", config, adapters, lora, base=str(tmp_path / "base"))
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert model.peft_config["default"].lora_dropout == 0.25
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS_BT)).logits.numpy()
    actual = logits(config, attach_lora(params, adapters, lora))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)

    back, same = load_adapter(tmp_path / "adapter", config)
    assert back == LoraConfig(R, 6.5, 0.25, tuple(sorted(targets)))
    jax.tree.map(np.testing.assert_array_equal, same, adapters)
    with pytest.raises(InputError, match="already exists"):
        save_adapter(tmp_path / "adapter", config, adapters, lora)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_adapters_change_no_bit(params, dtype):
    config = ModelConfig(V, D, F, N, H, G, C, qkv_bias=True, dtype=dtype)
    adapters = init_lora(jax.random.key(1), config, LORA)
    attached = logits(config, attach_lora(params, adapters, LORA))
    np.testing.assert_array_equal(attached, logits(config, params))


def test_new_a_is_uniform_as_in_peft():
    flat = flatten_dict(init_lora(jax.random.key(1), CONFIG, LoraConfig(rank=600)), sep="/")
    for path, inputs in (("attention/query", D), ("mlp/down", F)):
        a = np.asarray(flat[f"layers/{path}/a"])
        assert a.shape == (N, inputs, 600)
        # Kaiming's bound with slope sqrt(5): sqrt(6 / ((1 + 5) * inputs)).
        assert 0.999 < np.abs(a).max() * np.sqrt(inputs) <= 1
        np.testing.assert_allclose(a.std(), np.sqrt(1 / 3 / inputs), rtol=0.02)
        assert not (a[0] == a[1]).any()
    assert not any(np.any(value) for path, value in flat.items() if path.endswith("/b"))


@pytest.mark.parametrize("changes", [{"remat": "full"}, {"scan": False}])
def test_scan_and_remat_draw_the_same_dropout(params, changes):
    lora = LoraConfig(R, 8.0, 0.4, ALL)
    other = ModelConfig(V, D, F, N, H, G, C, qkv_bias=True, **changes)

    def gradient(config, seed):
        return value_and_gradient(config, params, trained(), lora, seed)[1]

    expected = gradient(CONFIG, 3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(other, 3), expected
    )
    again = flatten_dict(gradient(CONFIG, 4), sep="/")
    for path, value in flatten_dict(expected, sep="/").items():
        assert np.abs(value - again[path]).max() > 1e-6, path


def test_dropout_is_of_the_adapters_input_alone():
    x = jax.random.normal(jax.random.key(0), (4, 500, 6))
    module = Projection((6,))
    kernel = module.init(jax.random.key(1), x)["params"]
    identity = LowRank(jnp.eye(6), jnp.eye(6), jax.random.key(2), dropout=0.25, scale=3.0)
    added = module.apply({"params": kernel | {"lora": identity}}, x) - module.apply(
        {"params": kernel}, x
    )
    kept = np.abs(added) > 1e-5
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.02)
    np.testing.assert_allclose(added[kept], (3 * x / 0.75)[kept], rtol=1e-3, atol=1e-5)


def test_bfloat16_keeps_its_activations(params):
    config = ModelConfig(V, D, F, N, H, G, C, qkv_bias=True, dtype="bfloat16")
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    attached = attach_lora(base, trained(), LORA)
    program = jax.make_jaxpr(lambda p: CausalLM(config).apply({"params": p}, TOKENS_BT))(attached)
    assert f"f32[{B},{T},{F}]" not in str(program)
    exact = logits(CONFIG, attach_lora(params, trained(), LORA))
    np.testing.assert_allclose(logits(config, attached), exact, atol=0.15)
    merged = merge_lora(base, trained(), LORA)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 4}, "do not fit rank 4 on .*layers/mlp/up/a has shape"),
        ({"targets": ALL[:-1]}, "layers/mlp/down/a is unexpected; layers/mlp/down/b is unexpected"),
    ],
)
def test_adapters_of_another_form(params, changes, message, tmp_path):
    lora = LoraConfig(**{"rank": R, "alpha": 8.0, "dropout": 0.0, "targets": ALL} | changes)
    for use in (
        lambda: attach_lora(params, trained(), lora),
        lambda: merge_lora(params, trained(), lora),
        lambda: save_adapter(tmp_path / "a", CONFIG, trained(), lora),
    ):
        with pytest.raises(InputError, match=message):
            use()
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="layers/mlp/down/a is missing"):
        attach_lora(params, trained(lora=LoraConfig(R, 8.0, 0.0, ALL[:-1])), LORA)


def test_adapters_of_another_model(params):
    wider = ModelConfig(V, D, F + 1, N, H, G, C)
    with pytest.raises(InputError, match=r"mlp/down/a has shape \(2, 30, 5\), not \(2, 29, 5\)"):
        attach_lora(params, trained(wider), LORA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"alpha": 0.0}, "alpha must be greater than 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"targets": ()}, "got none"),
        ({"targets": ("q_proj", "q_proj")}, "different names"),
        ({"targets": ("query",)}, "among q_proj, k_proj, .* got query"),
    ],
)
def test_impossible_forms(changes, message):
    with pytest.raises(InputError, match=message):
        LoraConfig(**changes)


@pytest.fixture
def folder(tmp_path):
    save_adapter(tmp_path / "adapter", CONFIG, trained(), LORA)
    return tmp_path / "adapter"


def refusal(folder, config=CONFIG):
    with pytest.raises(InputError) as caught:
        load_adapter(folder, config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 7}, "says r = 7, but the tensors have rank 5"),
        ({"r": 0}, "rank must be at least 1"),
        ({"r": "many"}, "no configuration of a LoRA adapter"),
        ({"peft_type": "IA3"}, "is of type IA3"),
        ({"use_dora": True}, "use_dora = True"),
        ({"use_dora": True, "bias": "all"}, "bias = 'all', use_dora = True"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern = {'q_proj': 2}"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"a_feature_of_tomorrow": 3}, "a_feature_of_tomorrow = 3"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": list(ALL[1:])}, "self_attn.q_proj.lora_A.weight is unexpected"),
    ],
)
def test_folders_that_are_not_computed(folder, changes, message):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert message in refusal(folder)


def test_folders_that_are_not_whole(folder):
    assert "mlp.down_proj.lora_A.weight has shape [5, 29], not [5, 28]" in refusal(
        folder, ModelConfig(V, D, F - 1, N, H, G, C)
    )
    assert "model.layers.2.self_attn.q_proj.lora_A.weight is missing" in refusal(
        folder, ModelConfig(V, D, F, N + 1, H, G, C)
    )
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "not a whole safetensors file" in refusal(folder)
    weights.rename(folder / "adapter_model.bin")
    assert "pickles such as adapter_model.bin are never read" in refusal(folder)
    (folder / "adapter_config.json").unlink()
    assert "give a folder that PEFT saved" in refusal(folder)
