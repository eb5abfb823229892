import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from cat_jax.tasks.linear_rules import _logistic, fit_linear_rule

NAMES = ("a", "b", "c")


def rows(count, seed=0):
    drawn = np.random.default_rng(seed).integers(-5, 20, size=(count, 3)).tolist()
    return [dict(zip(NAMES, row, strict=True)) for row in drawn]


@given(st.lists(st.integers(-4, 4), min_size=3, max_size=3), st.integers(-50, 50))
def test_numbers_that_are_linear_are_found(weights, constant):
    values = rows(40)
    targets = [
        str(sum(w * row[n] for w, n in zip(weights, NAMES, strict=True)) + constant)
        for row in values
    ]
    rule = fit_linear_rule(values, targets, NAMES)
    assert [rule(row) for row in values] == targets


def test_numbers_stay_within_the_training_answers():
    values = rows(40)
    rule = fit_linear_rule(values, [str(row["a"]) for row in values], NAMES)
    highest = max(row["a"] for row in values)
    assert rule({"a": 10**6, "b": 0, "c": 0}) == str(highest)


def test_only_the_named_factors_are_read():
    values = rows(60)
    rule = fit_linear_rule(values, [str(row["a"]) for row in values], ("b", "c"))
    assert len({rule({"a": a, "b": 3, "c": 4}) for a in range(9)}) == 1


@pytest.mark.parametrize("fit", ["least_squares", "logistic"])
def test_two_classes(fit):
    values = rows(200)
    targets = ["high" if 2 * row["a"] - row["b"] > 4 else "low" for row in values]
    rule = fit_linear_rule(values, targets, NAMES, fit)
    right = [rule(row) == target for row, target in zip(values, targets, strict=True)]
    assert np.mean(right) > 0.95


def test_classes_in_a_row_need_the_logistic_fit():
    values = rows(400)
    targets = [["low", "medium", "high"][(row["a"] > 3) + (row["a"] > 11)] for row in values]

    def accuracy(fit):
        rule = fit_linear_rule(values, targets, NAMES, fit)
        return np.mean([rule(row) == target for row, target in zip(values, targets, strict=True)])

    assert accuracy("logistic") > 0.95
    assert accuracy("least_squares") < 0.85  # the class in the middle is masked


def test_logistic_weights_are_where_the_gradient_is_zero():
    rng = np.random.default_rng(0)
    design = np.column_stack([rng.normal(size=(70, 2)), np.ones(70)])
    is_class = np.eye(3)[rng.integers(0, 3, size=70)]
    ridge, weights = 0.05, _logistic(design, is_class, ridge=0.05)
    scale = np.abs(design).max(axis=0)

    def loss(flat):
        scaled = flat.reshape(3, 3) * scale[:, None]
        log_probs = log_softmax(design @ flat.reshape(3, 3), axis=1)
        return -(is_class * log_probs).sum() / 70 + ridge * (scaled**2).sum() / 2

    best = loss(weights.ravel())
    for direction in rng.normal(size=(20, 9)):
        step = 1e-4 * direction
        slope = (loss(weights.ravel() + step) - loss(weights.ravel() - step)) / 2e-4
        assert abs(slope) < 1e-3
        assert loss(weights.ravel() + 100 * step) > best
