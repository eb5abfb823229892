"""The trace annotation, from generated text to token masks."""

import re
from importlib import import_module
from itertools import islice

import numpy as np
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.data.bitset import decode
from cat_jax.data.tokenizer import train_tokenizer

stg = import_module("cat_jax.tasks.stg")
stg_h = import_module("cat_jax.tasks.stg_h")

GAMES = {"stg": (stg.stg_records, stg.CAUSAL), "stg_h": (stg_h.stg_h_records, tuple(stg_h.CAUSAL))}


def generated(game, count=40, **options):
    defaults = {"seed": 0, "granularity": "value", "effect": "target", "trace": True}
    return list(islice(GAMES[game][0](**defaults | options), count))


@pytest.fixture(scope="module")
def qwen(shared):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared / "tokenizers" / "qwen2.5")


def make_tokenizer(name, game, request):
    if name == "tiny":
        return train_tokenizer(record.text for record in generated(game))
    return request.getfixturevalue(name)


def token_at(offsets, position):
    """The token that holds the character at this position."""
    (found,) = (i for i, (start, end) in enumerate(offsets) if start <= position < end)
    return found


def factor(text, name):
    """First and last character of "Coal Dependency: 13.4%"."""
    found = re.search(re.escape(name) + r": [-0-9.]*\d%?", text)
    return found.start(), found.end() - 1


def expected_rows(text, offsets, names):
    """By token, what it may see: the row before each factor's next token sees that factor."""
    rows = {}
    for name in names:
        first, last = factor(text, name)
        row = token_at(offsets, last + 1) - 1
        # A tokenizer may merge the unit with what follows it: the row cannot see that token.
        rows[row] = list(range(token_at(offsets, first), min(row, token_at(offsets, last)) + 1))
    return rows


@pytest.mark.parametrize("tokenizer", ["tiny", "qwen"])
@pytest.mark.parametrize("granularity", ["span", "value"])
@pytest.mark.parametrize("game", GAMES)
def test_a_value_sees_its_own_name_and_value_alone(game, tokenizer, granularity, request):
    names = GAMES[game][1]
    tokenizer = make_tokenizer(tokenizer, game, request)
    records = generated(game, granularity=granularity)
    examples, coverage = align_records(records, tokenizer, max_length=256)
    assert coverage.spans_found == coverage.spans_asked
    assert coverage.spans_asked == len(records) * (1 + 3 * len(names))
    for record, example in zip(records, examples, strict=True):
        offsets = tokenizer(record.text, return_offsets_mapping=True)["offset_mapping"]
        expected = expected_rows(record.text, offsets, names)
        assert len(expected) == len(names)
        mask_TT = decode(example.q_bits, example.k_bits)
        answer = example.target_mask.argmax() - 1
        annotated = np.flatnonzero(mask_TT.any(1))
        assert set(annotated[annotated < answer]) == set(expected)
        for row, columns in expected.items():
            assert np.flatnonzero(mask_TT[row]).tolist() == columns


def test_words_that_value_rows_see(qwen):
    (record,) = generated("stg_h", 1)
    (example,), _ = align_records([record], qwen, max_length=256)
    mask_TT = decode(example.q_bits, example.k_bits)[: example.target_mask.argmax() - 1]
    for row, name in zip(np.flatnonzero(mask_TT.any(1)), stg_h.CAUSAL, strict=True):
        seen = qwen.decode(example.tokens[mask_TT[row]]).strip()
        first, last = factor(record.text, name)
        assert seen.rstrip("%") == record.text[first : last + 1].rstrip("%")
        assert qwen.decode(example.tokens[row]) == seen[-1]


def test_two_digits_end_in_the_row_of_the_last(qwen):
    factors = dict.fromkeys((*stg.CAUSAL, *stg.IRRELEVANT, *stg.SPURIOUS), 10)
    record = stg.stg_record(factors, granularity="value", trace=True)
    (example,), _ = align_records([record], qwen, max_length=256)
    mask_TT = decode(example.q_bits, example.k_bits)
    rows = np.flatnonzero(mask_TT.any(1))[:3]
    assert [qwen.decode(example.tokens[row - 1 : row + 2]) for row in rows] == ["10,"] * 3
    seen = [qwen.decode(example.tokens[mask_TT[row]]).strip() for row in rows]
    assert seen == ["Smoking: 10", "Weight: 10", "Exercise: 10"]


def test_a_cause_at_the_end_is_traced_to_the_word_before_the_answer():
    factors = dict.fromkeys((*stg.SPURIOUS, *stg.IRRELEVANT, *stg.CAUSAL), 5)
    record = stg.stg_record(factors, granularity="value", trace=True)
    tokenizer = train_tokenizer([record.text])
    (example,), _ = align_records([record], tokenizer, max_length=64)
    mask_TT = decode(example.q_bits, example.k_bits)
    seen = {
        tokenizer.decode([example.tokens[row + 1]]): tokenizer.decode(example.tokens[mask_TT[row]])
        for row in np.flatnonzero(mask_TT.any(1))
    }
    assert seen == {
        ", Weight: ": ", Smoking: 5",
        ", Exercise: ": ", Weight: 5",
        " Answer: ": ", Exercise: 5",
        "Low Risk": "555",
    }


@pytest.mark.parametrize("game", GAMES)
def test_without_trace_the_answer_alone_is_annotated(game):
    for plain, traced in zip(generated(game, trace=False), generated(game), strict=True):
        assert plain.text == traced.text
        assert plain.important == traced.important[:1]
        assert len(traced.important) == 1 + len(GAMES[game][1])
