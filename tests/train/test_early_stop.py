"""The best evaluation: what is handed over, when to give up, and that resuming changes neither."""

import os
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from toy import CONFIG, Toy, assert_same

from cat_jax.config import Training
from cat_jax.errors import InputError, Interrupted
from cat_jax.train.evaluations import Evaluations, verdict

SCORES = {4: 1.0, 8: 3.0, 12: 2.0, 16: 2.5, 20: 9.0, 24: 0.0}


def make(folder, **config):
    run = Toy(
        folder, replace(CONFIG, **config), lambda params: {"score": SCORES[run.evaluated[-1]]}
    )
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = make(tmp_path_factory.mktemp("undisturbed"), best="score", patience=2)
    return run, run()


def at_step(path, step):
    """The state that a run of so many steps ends with."""
    return Toy(path, replace(CONFIG, steps=step))()


def test_it_stops_after_two_evaluations_without_a_better_one(undisturbed, tmp_path):
    run, state = undisturbed
    assert run.steps[-1] == 16
    assert run.saved() == [8, 12, 16]
    assert_same(state, at_step(tmp_path, 8))
    assert run.checkpoints.evaluations == Evaluations(16, 8, 3.0, 2)


def test_resuming_does_not_train_on(undisturbed):
    run, state = undisturbed
    trained = len(run.steps)
    assert_same(run(), state)
    assert len(run.steps) == trained


@pytest.mark.parametrize("fatal", [7, 9, 13, 15])
def test_the_count_survives_a_crash(tmp_path, undisturbed, fatal):
    run = make(tmp_path, best="score", patience=2)

    def kill(step):
        if step == fatal:
            raise KeyError

    with pytest.raises(KeyError):
        run(on_step=kill)
    assert_same(run(), undisturbed[1])
    assert run.steps[-1] == 16
    assert run.saved() == [8, 12, 16]
    assert run.lines() == undisturbed[0].lines()


def test_the_count_survives_a_signal_in_the_deciding_evaluation(tmp_path, undisturbed):
    run = make(tmp_path, best="score", patience=2)
    score = run.evaluate

    def deciding(params):
        if run.evaluated == [4, 8, 12, 16]:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(params)

    run.evaluate = deciding
    with pytest.raises(Interrupted, match="step 16 is saved"):
        run()
    assert_same(run(), undisturbed[1])
    assert run.lines() == undisturbed[0].lines()
    evaluated = len(run.evaluated)
    assert_same(run(), undisturbed[1])
    assert run.steps[-1] == 16
    # The evaluation came after the save: the next run must know it, and not log it again.
    assert len(run.evaluated) == evaluated
    assert run.lines() == undisturbed[0].lines()


def test_more_patience_finds_the_later_maximum(tmp_path):
    run = make(tmp_path, best="score", patience=3)
    assert int(run().step) == 20
    assert run.steps[-1] == 24


def test_without_best_the_last_state_is_returned(tmp_path):
    assert int(make(tmp_path)().step) == 24


@pytest.mark.parametrize(
    ("metric", "best"), [("loss", 24), ("iid_loss", 24), ("perplexity", 24), ("ood", 20)]
)
def test_a_loss_is_best_where_it_is_low(metric, best):
    seen = Evaluations()
    for step, value in SCORES.items():
        seen = seen.add(step, {metric: value}, metric)
    assert seen.best == best
    assert seen.value == SCORES[best]
    assert seen.since_best == (24 - best) // 4


def test_the_verdict_names_the_chosen_step(undisturbed):
    run, _ = undisturbed
    assert verdict(run.lines(), run.config) == (
        "parameters of step 8, the best score (3); stopped early after step 16"
    )
    assert verdict(run.lines(), CONFIG) is None


def test_an_equal_value_is_no_better():
    seen = Evaluations().add(1, {"a": 2.0}, "a").add(2, {"a": 2.0}, "a")
    assert seen == Evaluations(2, 1, 2.0, 1)


@pytest.mark.parametrize("value", [{}, {"mass": float("nan")}])
def test_a_metric_that_evaluations_do_not_give(tmp_path, value):
    run = Toy(tmp_path, replace(CONFIG, best="mass"), lambda params: {"score": 1.0, **value})
    with pytest.raises(
        InputError, match=r"train\.best is 'mass', but what is measured while training is score$"
    ):
        run()


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match=r"train\.patience needs train.best"):
        Training(patience=3)
    with pytest.raises(InputError, match=r"train\.patience must be at least 1"):
        Training(patience=0, best="ood")
    with pytest.raises(InputError, match=r"train\.log_every \(20\) must not exceed .* \(10\)"):
        Training(patience=1, best="ood", eval_every=10)
    with pytest.raises(InputError, match=r"train\.keep must be at least 1"):
        Training(keep=0)


def test_the_best_state_is_the_one_that_was_evaluated(tmp_path, undisturbed):
    seen = {}
    run = make(tmp_path, best="score")
    score = run.evaluate

    def note(params):
        seen[run.evaluated[-1]] = np.array(params["w"])
        return score(params)

    run.evaluate = note
    state = run()
    assert int(state.step) == 20
    np.testing.assert_array_equal(state.params["w"], seen[20])
    assert not np.array_equal(seen[20], seen[24])
    assert isinstance(jax.tree.leaves(state)[0], jax.Array)
