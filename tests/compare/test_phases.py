"""Times of phases, with a clock that is set by hand."""

import jax
import jax.numpy as jnp
import pytest

from cat_jax.compare import phases
from cat_jax.compare.phases import Phases


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    return now


def test_a_phase_inside_another_counts_for_itself_alone(clock):
    times = Phases()
    evaluate = times.phase("evaluation")(lambda: clock.__setitem__(0, clock[0] + 3))
    clock[0] += 50  # in no phase
    for _ in range(2):
        with times.phase("training"):
            clock[0] += 10
            evaluate()
            clock[0] += 1
    with pytest.raises(KeyError):
        times.phase("training")({}.__getitem__)("fails")
    assert times.seconds == {"training": 22.0, "evaluation": 6.0}
    assert str(times) == "training 22 s, evaluation 6 s"


def test_compilation_is_taken_out_of_the_phase_it_is_in():
    times = Phases()
    x = jnp.ones((3, 5))
    with times.compilation_apart(), times.phase("training"):
        jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(x)
    compiled = times.seconds["compilation"]
    assert compiled > 0
    with times.phase("training"):
        jax.jit(lambda x: jnp.sinh(x @ x.T).sum())(x)
    assert times.seconds["compilation"] == compiled  # after the block nobody listens
    assert times.seconds["training"] > 0
