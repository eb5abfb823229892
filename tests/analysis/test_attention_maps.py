import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from cat_jax.analysis import attention_maps, read_attention
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


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_equals_torch(tmp_path, tokens, family):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=31,
        hidden_size=24,
        intermediate_size=28,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    oracle = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
        expected = oracle(torch.tensor(tokens), output_attentions=True).attentions
    oracle.save_pretrained(tmp_path)
    expected = torch.stack(expected).numpy()
    assert expected.std(axis=(1, 2)).max() > 0.1  # far from uniform
    config, params = load_pretrained(tmp_path)
    maps = attention_maps(CausalLM(config), params, tokens)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_maps_that_do_not_fit_are_refused_with_what_would(params, tokens):
    model, exact = CausalLM(CONFIG), 4 * 3 * B * 4 * T * T
    attention_maps(model, params, tokens, limit_bytes=exact)
    with pytest.raises(ValueError, match=r"tokens \[1, 11\] or \[2, 10\] fit"):
        attention_maps(model, params, tokens, limit_bytes=exact - 1)
    with pytest.raises(ValueError, match=r"KiB: tokens \[2, 7\] fit"):
        attention_maps(model, params, tokens, limit_bytes=4 * 3 * B * 4 * 7 * 7)
    huge = np.broadcast_to(np.int32(0), (64, 2048))
    with pytest.raises(ValueError, match=r"\[64, 2048\] take 12 GiB, above .* 4 GiB"):
        attention_maps(model, params, huge)


def test_public_name_is_the_function_even_beside_its_module():
    from cat_jax import analysis

    assert callable(analysis.attention_maps)


@pytest.fixture(scope="module")
def stories(shared):
    folder = shared / "models/stories260K"
    config, params = load_pretrained(folder)
    return CausalLM(config), params, AutoTokenizer.from_pretrained(folder)


def test_a_text_is_read_as_torch_reads_it(shared, stories):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model, params, tokenizer = stories
    text = "Once upon a time, Lily saw a big dog."
    oracle = AutoModelForCausalLM.from_pretrained(
        shared / "models/stories260K", attn_implementation="eager"
    )
    with torch.no_grad():
        ids = tokenizer(text, return_tensors="pt").input_ids
        expected = torch.stack(oracle(ids, output_attentions=True).attentions).numpy()
    maps = read_attention(model, params, tokenizer, text)
    tokens = maps.tokens
    assert maps.axes == ("layers", "heads", "queries", "keys")
    assert maps.values.shape == (5, 8, len(tokens), len(tokens))
    # Trained attention is sharp: torch's own float32 maps are 3e-6 off its float64 ones.
    np.testing.assert_allclose(maps, expected[:, 0], atol=1e-5)
    assert tokens[:4] == ("<s>", "Once", " upon", " a")
    assert "".join(tokens[1:]) == text


@pytest.mark.parametrize("name", ["models/stories260K", "tokenizers/llama2", "tokenizers/qwen2.5"])
def test_every_token_shows_what_it_read(shared, name):
    tokenizer = AutoTokenizer.from_pretrained(shared / name)
    text = "naïve 🦙, 12"
    model = CausalLM(ModelConfig(**vars(CONFIG) | {"vocab_size": len(tokenizer), "num_layers": 1}))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    maps = read_attention(model, params, tokenizer, text)
    ids, tokens = tokenizer(text).input_ids, maps.tokens
    np.testing.assert_array_equal(maps, attention_maps(model, params, jnp.array([ids]))[:, 0])
    assert len(tokens) == len(ids)
    assert any("🦙" in token for token in tokens)
    assert "�" not in "".join(tokens)
    assert all(token in text or token == "<s>" for token in tokens)


def test_texts_that_cannot_be_read_are_refused(shared, stories):
    model, params, tokenizer = stories
    qwen = AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5")
    with pytest.raises(ValueError, match="ids up to 12522, but the model knows 0 to 511"):
        read_attention(model, params, qwen, "Once upon")
    with pytest.raises(ValueError, match="no tokens"):
        read_attention(model, params, qwen, "")
    with pytest.raises(ValueError, match=r"tokens \[1, \d\] fit"):
        read_attention(model, params, tokenizer, "Once upon a time. " * 4, limit_bytes=4 * 40 * 64)
