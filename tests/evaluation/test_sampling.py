"""The filters against transformers' own, the draws against the probabilities they should follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.evaluation.sampling import Sampling, filter_logits, sample_tokens


def random_logits(seed, rows, vocab):
    return 3 * np.random.default_rng(seed).standard_normal((rows, vocab), np.float32)


def oracle_probabilities(logits, temperature, top_k, top_p):
    """Those that torch ``generate`` draws from."""
    torch = pytest.importorskip("torch")
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k is not None:
        chain.append(TopKLogitsWarper(top_k))
    if top_p is not None:
        chain.append(TopPLogitsWarper(top_p))
    scores = chain(None, torch.tensor(logits))
    return torch.softmax(scores, dim=-1).numpy(), np.isfinite(scores.numpy())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocab=st.sampled_from([1, 2, 67, 1000]),
    temperature=st.floats(0.2, 4.0),
    top_k=st.none() | st.integers(1, 80),
    top_p=st.none() | st.floats(0.01, 0.999),
)
def test_probabilities_equal_those_of_transformers(seed, vocab, temperature, top_k, top_p):
    logits = random_logits(seed, 3, vocab)
    expected, kept = oracle_probabilities(logits, temperature, top_k, top_p)
    filtered = filter_logits(jnp.asarray(logits), Sampling(temperature, top_k, top_p))
    probabilities = np.asarray(jax.nn.softmax(filtered, axis=-1))
    np.testing.assert_array_equal(np.isfinite(filtered), kept)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_a_whole_vocabulary_is_filtered_as_by_transformers():
    logits = random_logits(0, 2, 151_936)
    expected, kept = oracle_probabilities(logits, 0.7, 1000, 0.9)
    filtered = filter_logits(jnp.asarray(logits), Sampling(0.7, 1000, 0.9))
    np.testing.assert_array_equal(np.isfinite(filtered), kept)
    assert 100 < np.isfinite(filtered).sum(-1).min() < 1000
    np.testing.assert_allclose(jax.nn.softmax(filtered, axis=-1), expected, atol=1e-6)


def test_equally_likely_tokens_stay_or_go_together():
    # 0.4, 0.2, 0.2, 0.2: half of the probability is reached within the tie.
    logits = jnp.log(jnp.array([[0.2, 0.4, 0.2, 0.2]]))
    for sampling in (Sampling(1.0, top_p=0.5), Sampling(1.0, top_k=2)):
        np.testing.assert_array_equal(np.isfinite(filter_logits(logits, sampling)), True)
    only_first = filter_logits(logits, Sampling(1.0, top_p=0.3))
    np.testing.assert_array_equal(np.isfinite(only_first), [[False, True, False, False]])


def test_draws_follow_the_probabilities():
    sampling, rows = Sampling(3.0, top_k=7, top_p=0.9), 20_000
    logits = random_logits(5, 1, 11)
    expected = np.asarray(jax.nn.softmax(filter_logits(jnp.asarray(logits), sampling)))[0]
    keys = jax.random.split(jax.random.key(3), rows)
    drawn = sample_tokens(keys, jnp.broadcast_to(logits, (rows, 11)), sampling)
    counts = np.bincount(drawn, minlength=11)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert 4 <= kept.sum() < 7
    # Pearson's statistic; 25 is beyond its 99.9th percentile at 5 degrees of freedom.
    assert ((counts - rows * expected)[kept] ** 2 / (rows * expected[kept])).sum() < 25


def test_no_temperature_takes_the_likeliest():
    logits = random_logits(1, 40, 23)
    keys = jax.random.split(jax.random.key(0), 40)
    np.testing.assert_array_equal(
        sample_tokens(keys, jnp.asarray(logits), Sampling()), logits.argmax(-1)
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature .* at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature .* got nan"),
        ({"temperature": float("inf")}, "temperature must be finite"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p .* got 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p .* at most 1, got 1.5"),
        ({"top_k": 5}, "change nothing at temperature 0"),
        ({"top_p": 0.5}, "change nothing at temperature 0"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**setting)
