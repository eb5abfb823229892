import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.evaluation import decode
from cat_jax.evaluation.decode import greedy_decode
from cat_jax.models import CausalLM, ModelConfig, load_pretrained

CONFIG = ModelConfig(
    vocab_size=67,
    width=24,
    mlp_width=40,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    qkv_bias=True,
)
MODEL = CausalLM(CONFIG)
NEW = 13


@pytest.fixture(autouse=True)
def _no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


def random_params(seed=0):
    return jax.jit(MODEL.init)(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))["params"]


def random_prompts(*lengths):
    rng = np.random.default_rng(1)
    return [rng.integers(1, CONFIG.vocab_size, size).tolist() for size in lengths]


@pytest.fixture(scope="module")
def params():
    return random_params()


# Both sides of a padded length, the shortest prompt, and a last batch that is not full.
PROMPTS = random_prompts(5, 1, 32, 33, 17, 31, 2)


@jax.jit
def forward(params, tokens):
    return MODEL.apply({"params": params}, tokens)[0]


def full_passes(params, prompt):
    """Decoding by its definition: the whole text through the model for every new token."""
    ids = list(prompt)
    padded = np.zeros((1, 50), np.int32)
    gaps = []
    for _ in range(NEW):
        padded[0, : len(ids)] = ids
        logits_V = np.asarray(forward(params, padded))[0, len(ids) - 1]
        gaps.append(np.diff(np.sort(logits_V)[-2:]).item())
        ids.append(int(logits_V.argmax()))
    # Else rounding, not the decoder, would decide.
    assert min(gaps) > 1e-4
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def expected(params):
    return [full_passes(params, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_decoding_without_a_cache(params, expected, batch_size):
    ids = greedy_decode(
        MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=(), batch_size=batch_size
    )
    assert ids == expected
    assert len({tuple(row) for row in ids}) == len(PROMPTS)


def test_answers_end_before_the_first_stop_token(params, expected):
    stops = (expected[0][4], expected[3][0], expected[4][-1])
    ids = greedy_decode(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=stops, batch_size=4)
    cut = [next((i for i, t in enumerate(row) if t in stops), NEW) for row in expected]
    assert ids == [row[:end] for row, end in zip(expected, cut, strict=True)]
    assert ids[3] == []
    assert len(set(cut)) >= 3


def test_loop_ends_once_every_row_has_stopped(params, expected):
    first, second = expected[0], expected[2]
    stops = {first[2], second[5]}
    last = max(next(i for i, token in enumerate(row) if token in stops) for row in (first, second))
    ((tokens, lengths),) = decode._batches([PROMPTS[0], PROMPTS[2]], 4)
    ids = decode._generate(MODEL, params, tokens, lengths, np.array(sorted(stops), np.int32), NEW)
    np.testing.assert_array_equal(ids[0, : last + 1], first[: last + 1])
    np.testing.assert_array_equal(ids[:, last + 1 :], 0)
    assert last + 1 < NEW


def test_same_shapes_compile_once(params):
    def decode_lengths(params, *lengths):
        greedy_decode(
            MODEL,
            params,
            random_prompts(*lengths),
            max_new_tokens=NEW + 1,
            stop_ids=(0,),
            batch_size=5,
        )
        return decode._generate._cache_size()

    compiled = decode_lengths(params, 3, 9)
    assert decode_lengths(params, *range(1, 33)) == compiled
    assert decode_lengths(random_params(seed=1), 32) == compiled
    assert decode_lengths(params, 33) == compiled + 1


def test_the_prompt_pass_builds_no_logits(params):
    ((tokens, lengths),) = decode._batches(PROMPTS, 7)
    lowered = decode._generate.lower(MODEL, params, tokens, lengths, np.zeros(0, np.int32), NEW)
    program = lowered.compile().as_text()
    assert "f32[7,64,24]" in program
    assert "f32[7,64,67]" not in program
    assert "f32[448,67]" not in program


def test_no_prompts_give_no_answers(params):
    assert greedy_decode(MODEL, params, [], max_new_tokens=2, stop_ids=()) == []


@pytest.mark.parametrize(
    ("prompts", "sizes", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [2, 67]], {}, r"prompt 1 has ids from 2 to 67, .* 0 to 66"),
        ([[-1, 3]], {}, "prompt 0 has ids from -1 to 3"),
        ([[1]], {"max_new_tokens": 0}, r"max_new_tokens \(0\)"),
        ([[1]], {"batch_size": 0}, r"batch_size \(0\)"),
    ],
)
def test_bad_input_is_refused(params, prompts, sizes, message):
    with pytest.raises(ValueError, match=message):
        greedy_decode(MODEL, params, prompts, **{"max_new_tokens": 3, "stop_ids": ()} | sizes)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_equals_torch(tmp_path, family):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=67,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    oracle = AutoModelForCausalLM.from_config(config).eval()
    oracle.save_pretrained(tmp_path)
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = oracle.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
        expected.append(out[0, len(prompt) :].tolist())
    config, params = load_pretrained(tmp_path)
    ids = greedy_decode(
        CausalLM(config), params, PROMPTS, max_new_tokens=NEW, stop_ids=(), batch_size=4
    )
    assert ids == expected


def test_reproduces_a_trained_model(shared):
    from transformers import AutoTokenizer

    golden = json.loads((shared / "golden" / "stories260K_greedy.json").read_text())
    prompt, text = golden["prompt_ids"], golden["greedy_ids"]
    folder = shared / "models" / "stories260K"
    config, params = load_pretrained(folder)
    # The second prompt is the story so far, so its continuation is the rest of the story.
    ids = greedy_decode(
        CausalLM(config),
        params,
        [prompt, text[:50]],
        max_new_tokens=200,
        stop_ids=(2,),
        batch_size=2,
    )
    assert prompt + ids[0] == text
    assert ids[1][:151] == text[50:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(text[:1] + ids[0], skip_special_tokens=True) == golden["text"]
