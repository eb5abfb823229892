"""Attention dropout: which edges are hidden, what that does, and that plain training is rate 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.config import AttentionDropout
from cat_jax.data.alignment import Example
from cat_jax.data.batches import stack_examples
from cat_jax.data.bitset import mask_counts
from cat_jax.errors import InputError
from cat_jax.losses import LogitBudget
from cat_jax.losses.attention_dropout import dropped_edges
from cat_jax.losses.objective import combined_loss
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.testing import toy_model, toy_records
from pallas_kernels import annotated_pairs

V = 17


def example(q_bits, k_bits, seed=0):
    """Random tokens; what is annotated decides the rest."""
    length = len(q_bits)
    tokens = np.random.default_rng(seed).integers(0, V, length).astype(np.int32)
    mask = np.arange(length) == length - 1
    return Example(tokens, mask, q_bits, k_bits, *mask_counts(q_bits, k_bits))


BITS = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 2, 3, 1 << 31]), st.sampled_from([0, 0, 1, 2, 6, 1 << 31])),
    min_size=6,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(bits=BITS)
def test_every_other_key_is_hidden_from_a_query_that_sees_a_cause(bits):
    """At rate 1, where its effects are no query's with another; causes are never hidden."""
    q_bits, k_bits = (np.array(x, np.uint32)[:, None] for x in zip(*bits, strict=True))
    batch = stack_examples([example(q_bits, k_bits)])
    hidden = np.asarray(annotated_pairs(*dropped_edges(batch, 1.0, jax.random.key(0))))[0]
    for query in range(6):
        causes = [bool(q_bits[query, 0] & k_bits[key, 0]) for key in range(6)]
        if not any(causes[: query + 1]):
            assert not hidden[query].any()
            continue
        assert not (hidden[query] & causes).any()
        if not (q_bits == 3).any():
            np.testing.assert_array_equal(hidden[query], np.logical_not(causes))


def test_keys_are_drawn_at_the_rate():
    q_bits = (np.arange(50) == 49).astype(np.uint32)[:, None]
    k_bits = (np.arange(50) < 10).astype(np.uint32)[:, None]
    batch = stack_examples([example(q_bits, k_bits, n) for n in range(60)])
    shares = {}
    for rate in (0.0, 0.3):
        _, bits = dropped_edges(batch, rate, jax.random.key(1))
        found = np.asarray(bits[..., 0] & 1)
        assert not found[:, :10].any()
        shares[rate] = found[:, 10:].mean()
    assert shares[0.0] == 0
    assert abs(shares[0.3] - 0.3) < 4 * np.sqrt(0.3 * 0.7 / (60 * 40))


MODEL = CausalLM(ModelConfig(V, 8, 12, 1, 4, 2, 6))
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
PARAMS["embed"]["embedding"] *= 30


def test_what_is_hidden_does_not_matter():
    """In one layer the answer is a function of its query and causes alone, if others are hidden."""
    positions = np.arange(7)
    given = example(
        (positions == 5).astype(np.uint32)[:, None],
        np.isin(positions, [1, 3]).astype(np.uint32)[:, None],
    )

    @partial(jax.jit, static_argnums=1)
    def loss(tokens_BT, rate):
        batch = stack_examples([given])._replace(tokens_BT=tokens_BT)
        dropout, key = None if rate is None else AttentionDropout(rate=rate), jax.random.key(0)
        return combined_loss(
            MODEL, PARAMS, batch, None, 0.0, budget=LogitBudget(5), regularizer=dropout, key=key
        )[0]

    tokens = jnp.asarray(given.tokens[None])
    others, causes = (tokens.at[0, jnp.array(where)].add(3) % V for where in ([0, 2, 4], [1, 3]))
    assert float(loss(others, 1.0)) == pytest.approx(float(loss(tokens, 1.0)), rel=1e-6)
    assert abs(float(loss(causes, 1.0)) - float(loss(tokens, 1.0))) > 1e-3
    assert abs(float(loss(others, 0.0)) - float(loss(tokens, 0.0))) > 1e-3
    assert float(loss(tokens, None)) == pytest.approx(float(loss(tokens, 0.0)), rel=1e-6)


def test_a_run_draws_anew_in_every_step_and_the_same_again():
    """On one record: what changes from step to step is what is hidden."""
    train = cat.Training(steps=3, batch_size=2, log_every=1)

    def losses():
        records = toy_records(count=1) * 2
        optimizer = cat.Optimizer(learning_rate=1e-12)
        some = AttentionDropout(rate=0.8)
        run = cat.fit(toy_model(), records, regularizer=some, train=train, optimizer=optimizer)
        return [line["loss"] for line in run.history]

    first, again = losses(), losses()
    assert first == again
    assert len({round(loss, 6) for loss in first}) == 3


def test_kernels_are_refused_before_training():
    again = {"regularizer": AttentionDropout(), "train": cat.Training(steps=1, batch_size=8)}
    with pytest.raises(InputError, match="attention is xla_chunked, but xla_chunked takes no bias"):
        cat.fit(toy_model(attention="xla_chunked"), toy_records(count=8), **again)
