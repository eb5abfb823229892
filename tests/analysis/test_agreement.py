"""Agreement of rankings against scipy on other arrays, and by counting pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.analysis.proposals import (
    Proposal,
    agreement_markdown,
    explanation_agreement,
    propose_causes,
    ranking_agreement,
)
from cat_jax.data.records import Record, Span
from cat_jax.errors import InputError

MODEL = cat.testing.toy_model(max_positions=512)
RECORDS = [Record("a 3 b 12, c 7, d 41: ", "High"), Record("a 41, 5: ", "Low"), Record("x ", "y")]


def proposals(effects):
    return [Proposal(Span(str(n), n), effect, "test") for n, effect in enumerate(effects)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=7, unique=True
    ),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_tau_counts_pairs_in_the_same_order(effects, top, random):
    """Tau-b: (concordant - discordant) / sqrt(pairs not tied in one * pairs not tied in other)."""
    one, other = ([pair[n] for pair in effects] for n in (0, 1))
    shuffled = proposals(other)
    random.shuffle(shuffled)
    (found,) = ranking_agreement({"x": [proposals(one)], "y": [shuffled]}, top=top)
    pairs = list(itertools.combinations(range(len(effects)), 2))
    signs = [[np.sign(abs(x[i]) - abs(x[j])) for i, j in pairs] for x in (one, other)]
    untied = np.abs(signs).sum(1) if pairs else np.zeros(2)
    if untied.all():
        expected = np.multiply(*signs).sum() / np.sqrt(untied.prod())
        assert found.tau[0] == pytest.approx(expected)
    else:
        assert np.isnan(found.tau[0])
    if len(effects) > top:
        assert found.chance[0] == top / len(effects)
        assert 0 <= found.overlap[0] <= 1
    else:
        assert np.isnan(found.overlap[0])


def test_overlap_is_of_the_first_by_size():
    one, other = proposals([0.9, -0.8, 0.1, 0.2, 0.0]), proposals([0.1, -7, -9, 2, 1])
    (found,) = ranking_agreement({"x": [one], "y": [other]}, top=2)
    assert found.overlap.tolist() == [0.5]
    (found,) = ranking_agreement({"x": [one], "y": [other]}, top=3)
    assert found.overlap.tolist() == [2 / 3]


def test_ways_are_compared_two_by_two():
    found = explanation_agreement(
        MODEL, RECORDS, ways=("removal", "gradient", "attention"), top=1, batch_size=3
    )
    pairs = [(x.first, x.second) for x in found]
    assert pairs == [("removal", "gradient"), ("removal", "attention"), ("gradient", "attention")]
    removal, attention = (propose_causes(MODEL, RECORDS, by=x) for x in ("removal", "attention"))
    assert found[1].overlap[0] == (removal[0][0].span == attention[0][0].span)
    assert np.isnan(found[1].tau[2])
    for x in found:
        assert x.mean_tau.value == pytest.approx(np.mean(x.tau[:2]))
        assert x.mean_overlap.count == 2
    table = agreement_markdown(found).splitlines()
    assert len(table) == 5
    assert table[0] == "| ranked by | Kendall's tau | overlap of the first 1 | by chance |"
    assert table[2].startswith("| removal, gradient | ")


def test_a_ranking_agrees_with_itself():
    rng = np.random.default_rng(0)
    ranked = [proposals(rng.normal(size=6)) for _ in range(4)]
    (found,) = ranking_agreement({"x": ranked, "y": ranked})
    assert found.mean_tau[:3] == pytest.approx((1, 1, 1))
    assert found.mean_overlap[:3] == pytest.approx((1, 1, 1))


def test_what_cannot_be_compared_is_refused():
    one = [proposals([1.0, 2.0])]
    with pytest.raises(InputError, match="at least two rankings"):
        ranking_agreement({"x": one})
    with pytest.raises(InputError, match="record 1: 'x' and 'y' rank different words"):
        ranking_agreement({"x": one, "y": [proposals([1.0])]})
    with pytest.raises(InputError, match="'x' ranks 1 records, 'y' 2"):
        ranking_agreement({"x": one, "y": one * 2})
    (found,) = ranking_agreement({"x": [proposals([1.0])], "y": [proposals([1.0])]})
    with pytest.raises(InputError, match="no record has enough words"):
        _ = found.mean_tau
