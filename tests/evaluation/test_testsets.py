"""Which interventions are made of a test set."""

import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.evaluation.testsets import make_interventions, make_test_sets
from cat_jax.tasks import Task, chains, stg
from cat_jax.testing import toy_tokenizer

GAME = stg(train_records=1, test_records=5)


TOKENIZER = toy_tokenizer()


def edited(task, **options):
    return make_interventions(task, make_test_sets(task, TOKENIZER), TOKENIZER, **options)


def test_what_is_spurious_is_redrawn_by_default():
    found = edited(GAME, seed=4)
    assert list(found) == ["spurious"]
    rng = np.random.default_rng(4)
    assert found["spurious"].records == [
        GAME.interventions["spurious"](record, rng) for record in GAME.records("iid")
    ]


def test_interventions_are_those_that_are_named():
    found = edited(GAME, names=["reorder", "causal"])
    assert list(found) == ["reorder", "causal"]
    for name, test in found.items():
        rng = np.random.default_rng(0)
        expected = [GAME.interventions[name](record, rng) for record in GAME.records("iid")]
        assert test.records == expected
        assert test.targets == [record.target for record in expected]


class Without(stg):
    """A task without interventions."""

    interventions = Task.interventions


def test_only_what_is_spurious_may_be_missing():
    task = Without(train_records=1, test_records=2)
    assert edited(task) == {}
    assert edited(task, names=()) == {}
    with pytest.raises(InputError, match="task stg has no intervention 'reorder'; it has none"):
        edited(task, names=["reorder"])
    known = "it has spurious, causal, irrelevant, reorder, rename"
    with pytest.raises(InputError, match=f"task chains has no intervention 'odd'; {known}"):
        edited(chains(test_records=2), names=["spurious", "odd"])
