import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.analysis import attention_maps
from cat_jax.models import CausalLM, ModelConfig, load_pretrained

CONFIG = ModelConfig(
    vocab_size=31,
    width=20,
    mlp_width=28,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
)
B, T = 2, 11


@pytest.fixture(autouse=True)
def _no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, CONFIG.vocab_size, (B, T))


@pytest.fixture(scope="module")
def params(tokens):
    return jax.jit(CausalLM(CONFIG).init)(jax.random.key(0), tokens)["params"]


@pytest.mark.parametrize("attention", ["xla", "xla_chunked"])
def test_annotated_keys_hold_the_mass(params, tokens, attention):
    model = CausalLM(ModelConfig(**vars(CONFIG) | {"attention": attention}))
    segments = np.sort(np.random.default_rng(1).integers(0, 3, (B, T), np.int32), axis=1)
    q_bits, k_bits = np.random.default_rng(2).integers(0, 8, (2, B, T, 1), np.uint32)
    maps = attention_maps(model, params, tokens, segment_ids=segments)
    assert maps.shape == (3, B, 4, T, T)
    assert maps.dtype == jnp.float32
    _, aux = model.apply(
        {"params": params}, tokens, q_bits=q_bits, k_bits=k_bits, segment_ids=segments
    )
    annotated = (q_bits & k_bits.swapaxes(1, 2)) != 0
    mass = np.where(annotated[None, :, None], maps, 0).sum(-1)
    np.testing.assert_allclose(mass, aux.mass, atol=1e-6)


def test_rows_are_distributions_over_visible_keys(params, tokens):
    segments = np.array([[0] * 4 + [1] * 7, [0] * 11])
    maps = np.asarray(attention_maps(CausalLM(CONFIG), params, tokens, segment_ids=segments))
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
    same = segments[:, :, None] == segments[:, None, :]
    visible = np.broadcast_to((same & np.tri(T, dtype=bool))[None, :, None], maps.shape)
    assert (maps[visible] > 0).all()
    assert (maps[~visible] == 0).all()


def test_equals_torch(tmp_path, tokens):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=31,
        hidden_size=24,
        intermediate_size=28,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    oracle = LlamaForCausalLM(config).eval()
    oracle.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = oracle(torch.tensor(tokens), output_attentions=True).attentions
    config, params = load_pretrained(tmp_path)
    maps = attention_maps(CausalLM(config), params, tokens)
    np.testing.assert_allclose(maps, torch.stack(expected).numpy(), atol=2e-5)


def test_maps_that_do_not_fit_are_refused_with_what_would(params, tokens):
    model, exact = CausalLM(CONFIG), 4 * 3 * B * 4 * T * T
    attention_maps(model, params, tokens, limit_bytes=exact)
    with pytest.raises(ValueError, match=r"tokens \[1, 11\] or \[2, 10\] fit"):
        attention_maps(model, params, tokens, limit_bytes=exact - 1)
    with pytest.raises(ValueError, match=r"GiB: tokens \[2, 7\] fit"):
        attention_maps(model, params, tokens, limit_bytes=4 * 3 * B * 4 * 7 * 7)
    huge = np.broadcast_to(np.int32(0), (64, 2048))
    with pytest.raises(ValueError, match=r"\[64, 2048\] take 12 GiB, above .* 4 GiB"):
        attention_maps(model, params, huge)


def test_public_name_is_the_function_even_beside_its_module():
    from cat_jax import analysis

    assert callable(analysis.attention_maps)
