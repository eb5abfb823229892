import dataclasses
import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.evaluation import (
    GREEDY,
    Sampling,
    decode,
    decode_steps,
    generate,
    prompt_batches,
    warm_up,
)
from cat_jax.evaluation.sampling import filter_logits
from cat_jax.models import (
    CausalLM,
    ModelConfig,
    dequantize_params,
    load_pretrained,
    quantize_params,
)

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
WARM = Sampling(1.5, top_k=40, top_p=0.98)


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
    ids = generate(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=(), batch_size=batch_size)
    assert ids == expected
    assert len({tuple(row) for row in ids}) == len(PROMPTS)


def test_answers_end_before_the_first_stop_token(params, expected):
    stops = (expected[0][4], expected[3][0], expected[4][-1])
    ids = generate(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=stops, batch_size=4)
    cut = [next((i for i, t in enumerate(row) if t in stops), NEW) for row in expected]
    assert ids == [row[:end] for row, end in zip(expected, cut, strict=True)]
    assert ids[3] == []
    assert len(set(cut)) >= 3


@pytest.mark.parametrize("batch_size", [2, 16])
def test_an_answer_begins_with_one_of_its_first_tokens(params, expected, batch_size):
    """Of two prompts; decoding of the others, and from the second token on, is free."""
    some = [3, 11, 40, 66]
    first_ids = [some, None, [9], *[None] * (len(PROMPTS) - 3)]
    setting = {"max_new_tokens": NEW, "stop_ids": (), "batch_size": batch_size}
    ids = generate(MODEL, params, PROMPTS, first_ids=first_ids, **setting)
    logits_V = np.asarray(forward(params, np.array([PROMPTS[0]])))[0, -1]
    likeliest = max(some, key=lambda token: logits_V[token])
    assert expected[0][0] not in some
    for index, first in ((0, likeliest), (2, 9)):
        after = full_passes(params, [*PROMPTS[index], first])
        assert ids[index] == [first, *after[: NEW - 1]]
    assert [ids[n] for n in (1, 3, 4, 5, 6)] == [expected[n] for n in (1, 3, 4, 5, 6)]
    warm = Sampling(3.0)
    drawn = {
        generate(MODEL, params, PROMPTS[:1], first_ids=[some], sampling=warm, seed=seed, **setting)[
            0
        ][0]
        for seed in range(20)
    }
    assert len(drawn) > 1
    assert drawn <= set(some)


def test_loop_ends_once_every_row_has_stopped(params, expected):
    first, second = expected[0], expected[2]
    stops = {first[2], second[5]}
    last = max(next(i for i, token in enumerate(row) if token in stops) for row in (first, second))
    (batch,) = prompt_batches.prompt_batches([PROMPTS[0], PROMPTS[2]], 4, seed=0)
    ids = decode_steps.decode_batch(MODEL, params, batch, np.array(sorted(stops)), NEW, NEW, GREEDY)
    np.testing.assert_array_equal(ids[0, : last + 1], first[: last + 1])
    np.testing.assert_array_equal(ids[:, last + 1 :], 0)
    assert last + 1 < NEW
    ids = decode_steps.decode_batch(MODEL, params, batch, np.array(sorted(stops)), 1, NEW, GREEDY)
    assert ids[0].tolist() == [first[0]] + [0] * (NEW - 1)


def programs():
    return decode_steps._prefill._cache_size() + decode_steps._extend._cache_size()


def compiled(params, lengths, **setting):
    """How many programs exist after decoding prompts of these lengths."""
    setting = {"max_new_tokens": NEW + 1, "stop_ids": (0,), "batch_size": 5} | setting
    generate(MODEL, params, random_prompts(*lengths), **setting)
    return programs()


def test_same_shapes_compile_once(params):
    before = compiled(params, [3, 9, 1, 2, 5])
    assert compiled(params, range(1, 33)) == before
    assert compiled(random_params(seed=1), [32] * 6) == before
    assert compiled(params, [33] * 5) == before + 2  # of the prompts and of the steps
    assert compiled(params, [3] * 5, sampling=WARM, seed=0) == before + 4
    assert compiled(params, [30] * 5, sampling=WARM, seed=1) == before + 4


def test_few_prompts_are_no_large_batch(params):
    before = compiled(params, [3, 9, 1])
    assert compiled(params, [5, 3, 1, 9]) == before  # four rows
    assert compiled(params, [5, 3]) == before + 2
    assert [
        len(b.lengths_B) for b in prompt_batches.prompt_batches(random_prompts(3, 4, 5), 256, 0)
    ] == [4]


def test_few_widths_serve_all_lengths():
    lengths = np.arange(1, 5000)
    widths = np.array([prompt_batches.padded_length(int(length)) for length in lengths])
    assert (widths >= lengths).all()
    assert (widths[:256] - lengths[:256] < 32).all()
    assert (widths[256:] < 1.25 * lengths[256:]).all()
    assert len(set(widths.tolist())) == 8 + 4 * 4 + 1
    assert widths[4096] == 5120


def test_warming_up_leaves_nothing_to_compile(params):
    prompts = random_prompts(70, 3)
    setting = {"max_new_tokens": 5, "stop_ids": (1, 2), "sampling": WARM, "batch_size": 2}
    warm_up(MODEL, params, prompts, **setting)
    before = programs()
    generate(MODEL, params, prompts, seed=7, **setting)
    assert programs() == before
    warm_up(MODEL, params, [], **setting)


def test_the_prompt_pass_builds_few_logits(params):
    """Eight prompts of at most 33 tokens fill two rows of 64; logits are for eight positions."""
    (batch,) = prompt_batches.prompt_batches([*PROMPTS, PROMPTS[0]], 8, seed=0)
    assert batch.tokens_RT.shape == (2, 64)
    lowered = decode_steps._prefill.lower(
        MODEL, params, batch, np.zeros(0, np.int32), NEW, GREEDY, unstacked=True
    )
    program = lowered.compile().as_text()
    assert "f32[2,64,24]" in program
    assert "f32[8,1,67]" in program or "f32[8,67]" in program
    assert "64,67]" not in program
    assert "128,67]" not in program


@pytest.mark.parametrize("count", [1, 7, 8, 29])
def test_packed_prompts_are_whole_and_apart(count):
    prompts = random_prompts(*np.random.default_rng(count).integers(1, 33, count))
    for pack in (True, False):
        (batch,) = prompt_batches.prompt_batches(prompts, 32, seed=0, pack=pack)
        size = 1 << (count - 1).bit_length()
        assert len(batch.tokens_RT) == size or (
            pack and len(batch.tokens_RT) % max(1, size // 8) == 0
        )
        covered = np.zeros(batch.tokens_RT.shape, int)
        for n in range(size):
            prompt = prompts[min(n, count - 1)]
            row, start = int(batch.rows_B[n]), int(batch.starts_B[n])
            inside = row, slice(start, start + len(prompt))
            assert batch.tokens_RT[inside].tolist() == prompt
            assert batch.positions_RT[inside].tolist() == list(range(len(prompt)))
            assert len(set(batch.segment_ids_RT[inside].tolist())) == 1
            covered[inside] += 1
        np.testing.assert_array_equal(covered, np.asarray(batch.segment_ids_RT) > 0)
    assert count < 29 or 2 * covered.sum() > covered.size


def test_finished_answers_leave_the_batch(params, monkeypatch):
    """What goes on is what would go on in the whole batch; programs of 4 and 1 answers do it."""
    monkeypatch.setattr(decode_steps, "WORTH_STEPS", 2)
    jax.clear_caches()
    sizes = []
    keep = decode_steps._keep
    monkeypatch.setattr(
        decode_steps, "_keep", lambda state, kept: sizes.append(len(kept)) or keep(state, kept)
    )
    whole = generate(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=())
    assert sizes == []
    firsts = [[row.index(token) for row in whole if token in row] for token in range(67)]
    stops = [t for t in range(67) if firsts[t]][::3]
    stopped = generate(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=stops)
    assert stopped == [decode.until_stop(row, stops) for row in whole]
    assert sizes
    assert sizes == sorted(sizes, reverse=True)
    texts = sample(params, PROMPTS)
    stops = [row[4] for row in texts[:5]]
    expected = [decode.until_stop(row, stops) for row in texts]
    assert sample(params, PROMPTS, stop_ids=stops) == expected
    jax.clear_caches()


@pytest.mark.parametrize("worth", [1, 100])
def test_an_answer_ends_where_its_ids_say_so(params, monkeypatch, worth):
    """Asked after 4, 7, 10, ... tokens, with and without smaller batches for those that go on."""
    monkeypatch.setattr(decode_steps, "ASK_STEPS", 3)
    monkeypatch.setattr(decode_steps, "WORTH_STEPS", worth)
    jax.clear_caches()
    whole = sample(params, PROMPTS)
    stop = whole[1][8]
    ends = {tuple(whole[n][at : at + 2]) for n, at in ((0, 5), (2, 1), (4, 11), (6, 7))}

    def is_over(ids):
        return not ends.isdisjoint(pairwise(ids))

    def expected(row):
        row = decode.until_stop(row, [stop])
        sizes = (size for size in (4, 7, 10) if size <= len(row) and is_over(row[:size]))
        return row[: next(sizes, NEW)]

    given = sample(params, PROMPTS, stop_ids=[stop], is_over=is_over)
    assert given == [expected(row) for row in whole]
    assert len(set(map(len, given))) >= 4
    jax.clear_caches()


def test_int8_kernels_decode_as_their_dequantized_copy(params):
    quantized = quantize_params(params)
    setting = {"max_new_tokens": NEW, "stop_ids": ()}
    expected = generate(MODEL, dequantize_params(quantized), PROMPTS, **setting)
    assert generate(MODEL, quantized, PROMPTS, **setting) == expected


def test_stacked_layers_decode_alike(params, expected, monkeypatch):
    """As on a GPU or TPU, where layers are scanned over."""
    monkeypatch.setattr(decode_steps, "is_on_one_cpu", lambda params: False)
    stops = (expected[0][4], expected[3][0])
    ids = generate(MODEL, params, PROMPTS, max_new_tokens=NEW, stop_ids=stops)
    assert ids == [decode.until_stop(row, stops) for row in expected]


def sample(params, prompts, **setting):
    setting = {
        "max_new_tokens": NEW,
        "stop_ids": (),
        "sampling": WARM,
        "seed": 5,
        "batch_size": 7,
    } | setting
    return generate(MODEL, params, prompts, **setting)


def test_a_sample_depends_on_the_seed_and_not_on_its_batch(params):
    texts = sample(params, PROMPTS)
    assert sample(params, PROMPTS, batch_size=3) == texts
    # One prompt less and one longer: another last batch, another padded length.
    changed = [*PROMPTS[:4], *random_prompts(90)]
    assert sample(params, changed, batch_size=2)[:4] == texts[:4]
    others = sample(params, PROMPTS, seed=6)
    assert all(ours != theirs for ours, theirs in zip(texts, others, strict=True))


def test_stop_tokens_cut_a_sample_and_change_nothing_before(params):
    texts = sample(params, PROMPTS)
    stops = (texts[0][3], texts[2][6], texts[5][0])
    cut = [next((i for i, t in enumerate(row) if t in stops), NEW) for row in texts]
    expected = [row[:end] for row, end in zip(texts, cut, strict=True)]
    assert sample(params, PROMPTS, stop_ids=stops, batch_size=5) == expected
    assert len(set(cut)) >= 3


def test_first_tokens_follow_the_filtered_probabilities(params):
    prompt, rows, sampling = PROMPTS[0], 4096, Sampling(2.0, top_k=9, top_p=0.95)
    ids = sample(params, [prompt] * rows, max_new_tokens=1, sampling=sampling, batch_size=1024)
    counts = np.bincount(np.ravel(ids), minlength=CONFIG.vocab_size)
    logits_BTV = forward(params, np.array([prompt]))
    expected = rows * np.asarray(jax.nn.softmax(filter_logits(logits_BTV[:, -1], sampling)))[0]
    kept = expected > 0
    assert 5 <= kept.sum() <= 9
    assert counts[~kept].sum() == 0
    # Pearson's statistic; 27 is beyond its 99.9th percentile at 8 degrees of freedom.
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 27


def test_draws_are_independent_between_rows_and_steps(params):
    # Without weights every token is equally likely, whatever came before.
    flat = jax.tree.map(jnp.zeros_like, params)
    ids = sample(flat, [[1]] * 256, max_new_tokens=64, sampling=Sampling(1.0), batch_size=100)
    ids = np.array(ids)
    for same in (ids[:, 1:] == ids[:, :-1], ids[1:] == ids[:-1], ids[1:, :-1] == ids[:-1, 1:]):
        deviation = (same.mean() - 1 / 67) / np.sqrt(1 / 67 * (1 - 1 / 67) / same.size)
        assert abs(deviation) < 4
    counts = np.bincount(ids.ravel(), minlength=67)
    # 66 degrees of freedom: 113 is beyond the 99.9th percentile of Pearson's statistic.
    assert ((counts - ids.size / 67) ** 2 / (ids.size / 67)).sum() < 113


def test_no_prompts_give_no_answers(params):
    assert generate(MODEL, params, [], max_new_tokens=2, stop_ids=()) == []


@pytest.mark.parametrize(
    ("prompts", "sizes", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [2, 67]], {}, r"prompt 1 has ids from 2 to 67, .* 0 to 66"),
        ([[-1, 3]], {}, "prompt 0 has ids from -1 to 3"),
        ([[1]], {"max_new_tokens": 0}, r"max_new_tokens \(0\)"),
        ([[1]], {"batch_size": 0}, r"batch_size \(0\)"),
        ([[1]], {"seed": -1}, "seed must be from 0 to .*, got -1"),
        ([[1]], {"seed": 2**32}, "got 4294967296"),
    ],
)
def test_bad_input_is_refused(params, prompts, sizes, message):
    with pytest.raises(ValueError, match=message):
        generate(MODEL, params, prompts, **{"max_new_tokens": 3, "stop_ids": ()} | sizes)


def torch_generate(oracle, prompts, stops=None, **setting):
    """What torch adds to a batch that is padded on the left, up to the first stop token."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = oracle.generate(
        ids, attention_mask=mask, do_sample=False, pad_token_id=0, eos_token_id=stops, **setting
    )
    return [decode.until_stop(row, stops or []) for row in out[:, width:].tolist()]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_equals_torch_on_a_left_padded_batch(tmp_path, family):
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
    expected = torch_generate(oracle, PROMPTS, max_new_tokens=NEW)
    config, params = load_pretrained(tmp_path)
    setting = {"max_new_tokens": NEW, "batch_size": 4}
    assert generate(CausalLM(config), params, PROMPTS, stop_ids=(), **setting) == expected
    stops = [expected[0][4], expected[3][2]]
    stopped = torch_generate(oracle, PROMPTS, stops, max_new_tokens=NEW)
    assert generate(CausalLM(config), params, PROMPTS, stop_ids=stops, **setting) == stopped
    assert len(set(map(len, stopped))) >= 3


def test_equals_torch_on_a_trained_model(shared):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models/stories260K"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["Once upon a time", "Lily", "The dog was sad. He wanted to go to the big", ""]
    prompts = [tokenizer(text).input_ids for text in texts]
    oracle = AutoModelForCausalLM.from_pretrained(folder).eval()
    setting = {"max_new_tokens": 60}
    stops = [2, *tokenizer.convert_tokens_to_ids(["!", "?"])]
    config, params = load_pretrained(folder)
    for ends in ([2], stops):
        expected = torch_generate(oracle, prompts, ends, **setting)
        assert generate(CausalLM(config), params, prompts, stop_ids=ends, **setting) == expected


def test_reproduces_a_trained_model(shared):
    from transformers import AutoTokenizer

    golden = json.loads((shared / "golden" / "stories260K_greedy.json").read_text())
    prompt, text = golden["prompt_ids"], golden["greedy_ids"]
    folder = shared / "models" / "stories260K"
    config, params = load_pretrained(folder)
    # The second prompt is the story so far, so its continuation is the rest of the story.
    ids = generate(
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


@pytest.mark.parametrize("batch_size", [2, 7])
def test_answers_end_at_the_last_position(params, batch_size):
    """Those of a longer model, cut: a neighbor's room is nobody else's."""
    small = MODEL.clone(config=dataclasses.replace(CONFIG, max_positions=36))
    settings = {"max_new_tokens": NEW, "stop_ids": (), "batch_size": batch_size}
    given = generate(small, params, PROMPTS, **settings)
    whole = generate(MODEL, params, PROMPTS, **settings)
    assert given == [ids[: 36 - len(p)] for ids, p in zip(whole, PROMPTS, strict=True)]
    assert {len(ids) for ids in given} == {NEW, 4, 3, 5}


def test_the_cache_is_no_longer_than_the_model(params):
    small = MODEL.clone(config=dataclasses.replace(CONFIG, max_positions=70))
    most = decode._most_new_tokens([[3, 4]], small.config, 10**9)
    (batch,) = prompt_batches.prompt_batches([[3, 4]], 1, seed=0)
    state = decode_steps._prefill(small, params, batch, np.zeros(0, np.int32), most, GREEDY, True)
    assert {cache.key_BGSC.shape for cache in state.cache} == {(1, 2, 32 + 68, 6)}
    assert len(generate(small, params, [[3, 4]], max_new_tokens=10**9, stop_ids=())[0]) == 68
