"""Head scores on attention that is known, and on a model built by hand."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.analysis import attention_maps
from cat_jax.analysis.attention import (
    HeadScores,
    head_scores,
    induction_scores,
    needle_records,
    retrieval_scores,
)
from cat_jax.analysis.attention.patterns import PATTERNS, pattern_score
from cat_jax.analysis.attention.retrieval import copied_share
from cat_jax.data.alignment import align_records
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.causal_mass import measure_causal_mass
from cat_jax.models import CausalLM, LanguageModel, ModelConfig
from cat_jax.testing import ToyTask, toy_tokenizer

TOY = cat.testing.toy_model(num_layers=3, num_heads=4, num_kv_heads=2)
TASK = ToyTask(test_records=5)
RECORDS = TASK.records("ood")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_patterns_are_their_definitions(tokens):
    length = range(len(tokens))
    rules = {
        "sink": lambda i, j: j == 0 < i,
        "previous token": lambda i, j: j == i - 1,
        "duplicate token": lambda i, j: j < i and tokens[j] == tokens[i],
        "induction": lambda i, j: 0 < j < i and tokens[j - 1] == tokens[i],
    }
    assert rules.keys() == PATTERNS.keys()
    for name, rule in rules.items():
        expected = [[rule(i, j) for j in length] for i in length]
        assert PATTERNS[name](np.array(tokens)).tolist() == expected, name


def test_attention_that_is_known_has_the_scores_that_are_known():
    tokens = np.array([7, 1, 2, 3, 1, 2, 3])  # repeats from position 4 on
    length, rows = len(tokens), np.arange(len(tokens))
    previous = np.eye(length)[np.maximum(rows - 1, 0)]
    back = np.where(rows >= 4, rows - 2, rows)  # to what came next the last time
    inductive = np.eye(length)[back]
    uniform = np.tri(length) / np.arange(1, length + 1)[:, None]
    sink = np.eye(length)[np.zeros(length, int)]
    maps = np.stack([previous, inductive, uniform, sink])
    found = {name: pattern_score(maps, pattern(tokens)) for name, pattern in PATTERNS.items()}
    later = 1 / np.arange(2, length + 1)
    seen = 1 / np.arange(5, length + 1)
    expected = {
        "sink": [1 / 6, 0, later.mean(), 1],
        "previous token": [1, 0, later.mean(), 1 / 6],
        "duplicate token": [0, 0, seen.mean(), 0],
        "induction": [0, 1, seen.mean(), 0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12, err_msg=name)
    only = pattern_score(maps, PATTERNS["previous token"](tokens), rows > 4)
    np.testing.assert_allclose(only[2], seen[1:].mean())
    assert np.isnan(pattern_score(maps, np.zeros((length, length), bool))).all()
    with pytest.raises(InputError, match="no edges of shape"):
        pattern_score(maps, np.zeros((3, 3), bool))


@pytest.mark.parametrize("batch_size", [2, 64])
def test_scores_of_records_are_those_of_their_maps(batch_size):
    found = head_scores(TOY, RECORDS, spurious=TASK.spurious_spans, batch_size=batch_size)
    assert list(found.by_record) == [
        "causal",
        "spurious",
        "sink",
        "previous token",
        "duplicate token",
    ]
    examples, _ = align_records(RECORDS, TOY.tokenizer, max_length=99)
    for r, (record, example) in enumerate(zip(RECORDS, examples, strict=True)):
        maps = np.asarray(attention_maps(TOY.model, TOY.params, example.tokens[None]))[:, 0]
        for name in ("sink", "previous token", "duplicate token"):
            expected = pattern_score(maps, PATTERNS[name](example.tokens))
            np.testing.assert_allclose(found.by_record[name][r], expected, atol=1e-6)
        start = len(record.input)
        np.testing.assert_allclose(
            found.by_record["spurious"][r], maps[:, :, start - 1, 4:7].sum(-1), atol=1e-6
        )
    mass = measure_causal_mass(TOY.model, TOY.params, examples)
    np.testing.assert_allclose(found["causal"], mass.by_head_NH, atol=1e-6)


def test_records_without_causes_count_nowhere():
    bare = Record("a=3 b=4 a is ", "3")
    found = head_scores(TOY, [bare, *RECORDS])
    assert np.isnan(found.by_record["causal"][0]).all()
    np.testing.assert_allclose(found["causal"], head_scores(TOY, RECORDS)["causal"], atol=1e-6)
    assert np.isnan(head_scores(TOY, [bare])["causal"]).all()
    with pytest.raises(InputError, match="no record has anything to score for 'causal'"):
        head_scores(TOY, [bare]).ranked("causal")


def built_by_hand():
    """Two layers of two heads: previous token and duplicate token, then induction and uniform.

    The residual stream has a part for the token, one for the token before it, and a constant. Of
    the pairs of rotary components the first four tell positions apart; those that hardly turn
    compare tokens.
    """
    tokenizer = toy_tokenizer()
    vocab, pairs, slow, sharp = len(tokenizer), 64, 14, 200.0
    config = ModelConfig(vocab, 2 * vocab + 1, 4, 2, 2, 2, 2 * pairs, rope_theta=1e23)
    shapes = jax.eval_shape(CausalLM(config).init, jax.random.key(0), np.zeros((1, 1), int))
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes["params"])
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: np.ones_like(x) if "norm" in str(path) else x, params
    )
    attention = params["layers"]["attention"]
    query, key, value, output = (
        attention[name]["kernel"] for name in ("query", "key", "value", "output")
    )
    token, before, constant = np.arange(vocab), np.arange(vocab) + vocab, 2 * vocab
    params["embed"]["embedding"][token, token] = 1.0
    params["embed"]["embedding"][:, constant] = 1.0
    place = slow + token // 2 + pairs * (token % 2)
    turn = np.float32(1e23) ** (-np.arange(4) / pairs)
    # Scores of position: sum over pairs of cos(turn * (i - j - 1)).
    query[0, constant, 0, :4] = sharp * np.cos(turn)
    query[0, constant, 0, pairs : pairs + 4] = -sharp * np.sin(turn)
    key[0, constant, 0, :4] = 1.0
    value[0, token, 0, place] = 1.0
    output[0, 0, place, before] = 1.0
    query[0, token, 1, place], key[0, token, 1, place] = sharp, 1.0
    query[1, token, 0, place], key[1, before, 0, place] = sharp, 1.0
    # Norms scale what is copied; the copy is then of another size than the token itself.
    return LanguageModel(CausalLM(config), params, tokenizer)


def test_a_model_built_by_hand_is_scored_as_it_was_built():
    model, length = built_by_hand(), 19
    found = induction_scores(model, length=length, sequences=3)["induction"]
    # The first token reads itself for want of another, so its repetition finds two places.
    assert found[1, 0] == pytest.approx(1 - 0.5 / length, abs=1e-3)
    assert found[0].max() < 0.06
    uniform = 1 / np.arange(length + 1, 2 * length + 1)
    assert found[1, 1] == pytest.approx(uniform.mean(), abs=1e-5)
    texts = [Record("abcdeabcde", "f"), Record("xyzwxyzw", "x")]
    scores = head_scores(model, texts)
    assert scores["previous token"][0, 0] == pytest.approx(1, abs=1e-3)
    assert scores["previous token"][0, 1] < 0.2
    # Itself and the earlier occurrence, and once two earlier ones: tokens 5 to 9 and 4 to 8.
    first, second = (scores.by_record["duplicate token"][r, 0, 1] for r in (0, 1))
    assert first == pytest.approx(1 / 2, abs=1e-3)
    assert second == pytest.approx((4 / 2 + 2 / 3) / 5, abs=1e-3)


def test_heads_are_ranked_with_intervals_over_records():
    rng = np.random.default_rng(0)
    values = rng.random((40, 3, 5)) * 0.1
    values[:, 2, 1] += 0.5
    values[:, 0, 3] -= 0.7
    scores = HeadScores({"x": np.concatenate([values, np.full((2, 3, 5), np.nan)])})
    first, second, third = scores.ranked("x", top=3)
    assert (first.layer, first.head, second.layer, second.head) == (0, 3, 2, 1)
    assert first.score.value == pytest.approx(values[:, 0, 3].mean())
    assert first.score.count == 40
    spread = values[:, 0, 3].std() / np.sqrt(40)
    assert first.score.high - first.score.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert abs(third.score.value) < 0.1
    with pytest.raises(InputError, match="no score 'y'"):
        scores.ranked("y")
    with pytest.raises(InputError, match="top must be at least 1"):
        scores.ranked("x", top=-1)
    with pytest.raises(InputError, match="no panel"):
        scores.figure(names=[])


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    hard = rng.random((30, 1, 1)) * np.ones((30, 2, 3))  # what records differ in
    before = HeadScores({"x": hard})
    after = HeadScores({"x": hard + 0.1 + rng.normal(0, 0.01, hard.shape)})
    (head,) = after.minus(before).ranked("x", top=1)
    assert 0.09 < head.score.low < head.score.high < 0.12
    with pytest.raises(InputError, match="one shape on the same records"):
        after.minus(HeadScores({"x": hard[:9]}))
    with pytest.raises(InputError, match="cannot be compared"):
        after.minus(HeadScores({"y": hard}))


def test_copies_are_counted_by_different_tokens():
    tokens = np.array([5, 6, 7, 6, 8, 9])  # the needle is 6, 7, 6
    needle, written = [1, 2, 3], np.array([6, 7, 6, 9])
    rows = np.eye(6)[np.array([[3, 1, 1, 5], [0, 2, 0, 0], [5, 5, 4, 5], [1, 2, 3, 5]])]
    # Copies 6 only; 7 only; 9, which is no needle; 6 and 7.
    np.testing.assert_array_equal(copied_share(rows, tokens, written, needle), [0.5, 0.5, 0, 1])


def test_the_model_built_by_hand_retrieves():
    """Its induction head reads what followed the last token, and does not write it."""
    model = built_by_hand()
    table = model.params["embed"]["embedding"]
    vocab = len(table)
    attention = model.params["layers"]["attention"]
    place = 14 + np.arange(vocab) // 2 + 64 * (np.arange(vocab) % 2)
    attention["value"]["kernel"][1, np.arange(vocab), 0, place] = 1.0
    attention["output"]["kernel"][1, 0, place, np.arange(vocab)] = 1.0
    if "unembed" in model.params:
        model.params["unembed"]["kernel"][np.arange(vocab), np.arange(vocab)] = 1.0
        # The token itself must not win over the copy.
        attention["output"]["kernel"][1] *= 9.0
    records = [
        Record("ab pqrs. p", "qrs", (Annotation(Span("qrs", 10), (Span("b pqrs", 1),)),)),
        Record("cdefg 123 e", "fg", (Annotation(Span("fg", 11), (Span("cd", 0),)),)),
    ]
    found = retrieval_scores(model, records, batch_size=2).by_record["retrieval"]
    # It writes "qrs. pq"; the space comes from after the needle, and "b" never.
    assert found[0, 1, 0] == pytest.approx(4 / 6)
    assert found[1].max() == 0
    assert found[0, 0, 0] == 0


def test_needles_stand_where_their_annotation_says():
    records = needle_records(count=9, sentences=7, seed=3)
    assert len({record.input for record in records}) == 9
    for record in records:
        (note,) = record.important
        (cause,) = note.causes
        assert cause.text == record.target
        assert record.input[cause.start :].startswith(record.target)
        assert record.input.count(record.target) == 1
    found = retrieval_scores(TOY_LONG, records[:3], batch_size=2)
    assert found["retrieval"].shape == (2, 2)
    assert (found["retrieval"] <= 1).all()


TOY_LONG = cat.testing.toy_model(max_positions=1024)


def test_what_cannot_be_scored_is_refused():
    for score in (head_scores, retrieval_scores):
        with pytest.raises(InputError, match="at least one"):
            score(TOY, [])
        with pytest.raises(InputError, match=r"one Record is no list of records; give \[record\]"):
            score(TOY, RECORDS[0])
        with pytest.raises(InputError, match=r"records\[0\] is a int"):
            score(TOY, [3])
        with pytest.raises(InputError, match=r"batch_size.* must be at least 1"):
            score(TOY, RECORDS, batch_size=0)
    with pytest.raises(InputError, match="length must be at most the 96 plain tokens"):
        induction_scores(TOY, length=97)
    short = cat.testing.toy_model(max_positions=12)
    with pytest.raises(InputError, match="a sequence has 15 tokens, and the model reads 12"):
        head_scores(short, RECORDS)


def test_patterns_that_do_not_fit_are_refused():
    model = cat.testing.toy_model()
    records = [Record("a b ", "c")]
    with pytest.raises(InputError, match=r"'mine' has edges of shape \[2, 2\] for \d tokens"):
        head_scores(model, records, patterns={"mine": lambda ids: np.ones((2, 2), bool)})
    with pytest.raises(InputError, match="a pattern is named 'causal'"):
        head_scores(model, records, patterns={"causal": lambda ids: np.ones((2, 2), bool)})
