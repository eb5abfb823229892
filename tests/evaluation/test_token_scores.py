from importlib import import_module

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.errors import InputError
from cat_jax.evaluation.token_scores import token_scores
from cat_jax.testing import toy_model

# In its package, a function of the same name hides the module.
module = import_module("cat_jax.evaluation.token_scores")
TOY = toy_model(seed=3)
MODEL, PARAMS = TOY.model, TOY.params
VOCAB = MODEL.config.vocab_size


def one_by_one(sequence, targets):
    """The slow obvious way: all logits of one sequence without padding, in float64."""
    if not len(targets):
        return np.zeros(0), np.zeros(0, bool)
    logits, _ = MODEL.apply({"params": PARAMS}, np.array([sequence], np.int32))
    logits = np.asarray(logits[0], np.float64)
    logs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logs -= logits.max(-1, keepdims=True)
    log_probs = [logs[t - 1, sequence[t]] for t in targets]
    return np.array(log_probs), np.array([logits[t - 1].argmax() == sequence[t] for t in targets])


def check(sequences, targets, **options):
    found = dict(token_scores(MODEL, PARAMS, sequences, targets, **options))
    assert sorted(found) == list(range(len(sequences)))
    for n, (sequence, positions) in enumerate(zip(sequences, targets, strict=True)):
        log_probs, likeliest = one_by_one(sequence, positions)
        np.testing.assert_allclose(found[n].log_probs, log_probs, atol=2e-6)
        np.testing.assert_array_equal(found[n].likeliest, likeliest)
        assert found[n].total == pytest.approx(log_probs.sum(), abs=1e-5)
    return found


@st.composite
def asked(draw):
    sequence = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40))
    among = st.integers(1, max(1, len(sequence) - 1))
    wanted = draw(st.sets(among, max_size=6)) if len(sequence) > 1 else ()
    return sequence, sorted(wanted)


@settings(max_examples=15, deadline=None)
@given(st.lists(asked(), max_size=7), st.integers(1, 5))
def test_equals_one_sequence_at_a_time(pairs, batch_size):
    check([s for s, _ in pairs], [t for _, t in pairs], batch_size=batch_size)


def test_what_differs_in_the_last_token_alone_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        module, "_read", lambda *inputs, real=module._read: read.append(inputs[2]) or real(*inputs)
    )
    rng = np.random.default_rng(0)
    context = rng.integers(0, VOCAB, 9).tolist()
    sequences = [[*context, last] for last in (4, 7, 4, 9)] + [context]
    found = check(sequences, [[9], [8, 9], [3, 9], [9], [8]])
    assert [x.shape for x in read] == [(2, 32)]
    assert found[0].total == found[2].log_probs[1]


def test_long_sequences_go_in_smaller_batches_and_logits_in_pieces(monkeypatch):
    monkeypatch.setattr(module, "MOST_TOKENS", 128)
    monkeypatch.setattr(module, "LOGITS_MIB", 0)
    shapes = []
    monkeypatch.setattr(
        module,
        "_read",
        lambda *inputs, real=module._read: shapes.append(inputs[2].shape) or real(*inputs),
    )
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, VOCAB, n).tolist() for n in (130, 70, 3, 33, 2, 5, 31, 60)]
    check(sequences, [range(1, len(s)) for s in sequences], batch_size=3)
    assert shapes == [(1, 160), (1, 96), (2, 64), (3, 32), (1, 32)]


def test_few_programs_serve_many_lengths():
    jax.clear_caches()
    rng = np.random.default_rng(2)
    for shift in range(3):
        sequences = [rng.integers(0, VOCAB, shift + n).tolist() for n in range(2, 60, 3)]
        list(token_scores(MODEL, PARAMS, sequences, [[1, len(s) - 1] for s in sequences]))
    assert module._read._cache_size() <= 3


@pytest.mark.parametrize(
    ("sequence", "targets", "message"),
    [
        ([1, 2], [0], "sequence 1 has targets from 0 to 0, but they can be 1 to 1"),
        ([1, 2], [1, 2], "from 1 to 2"),
        ([1, VOCAB], [1], f"sequence 1 has ids from 1 to {VOCAB}"),
        ([-1, 3], [1], "ids from -1 to 3"),
    ],
)
def test_bad_input_is_refused(sequence, targets, message):
    with pytest.raises(InputError, match=message):
        list(token_scores(MODEL, PARAMS, [[1, 2], sequence], [[1], targets]))
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        list(token_scores(MODEL, PARAMS, [[1, 2]], [[1]], batch_size=0))
