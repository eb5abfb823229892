import networkx as nx
import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.tasks import CausalModel, Factor, stg, stg_h

STEP = Factor("step", "cause", lambda rng, values: int(rng.integers(1, 5)))
SHADOW = Factor("shadow", "twin", lambda rng, values: 2 * values["step"], ("step",))
ECHO = Factor("echo", "twin", lambda rng, values: -values["shadow"], ("shadow",))
HUM = Factor("hum", "hidden", lambda rng, values: rng.normal())


def model(*factors, causes=("step",)):
    return CausalModel(factors, causes, lambda values: str(values["step"] > 2), answer="fall")


def test_factors_are_drawn_from_their_parents():
    drawn = model(STEP, SHADOW, ECHO, HUM).draw(np.random.default_rng(0))
    assert list(drawn) == ["step", "shadow", "echo", "hum"]
    assert drawn["shadow"] == 2 * drawn["step"] == -drawn["echo"]


def test_do_cuts_the_edges_above_and_keeps_those_below():
    cut = model(STEP, SHADOW, ECHO).do({"shadow": lambda rng, values: 100})
    rng = np.random.default_rng(0)
    assert {row["shadow"] for row in (cut.draw(rng) for _ in range(9))} == {100}
    assert cut.draw(rng)["echo"] == -100
    assert set(cut.graph.edges) == {("shadow", "echo"), ("step", "fall")}
    assert set(model(STEP, SHADOW, ECHO).graph.edges) == {("step", "shadow"), *cut.graph.edges}


def test_roles():
    middle = Factor("middle", "mediator", lambda rng, values: values["step"], ("step",))
    whole = model(STEP, middle, SHADOW, HUM, causes=("middle",))
    assert whole.spurious == ("shadow",)
    assert whole.ancestors == ("step", "middle")
    assert whole.graph.nodes["fall"]["role"] == "answer"
    assert set(whole.graph.predecessors("fall")) == {"middle", "hum"}


@pytest.mark.parametrize(
    ("factors", "causes", "message"),
    [
        ((SHADOW, STEP), ("step",), "'shadow' is drawn before its parent 'step'"),
        ((STEP, STEP), ("step",), "two factors are named 'step'"),
        ((STEP,), ("stop",), "cause 'stop' is no factor"),
    ],
)
def test_models_that_cannot_be(factors, causes, message):
    with pytest.raises(InputError, match=message):
        model(*factors, causes=causes)


def test_an_intervention_on_nothing():
    with pytest.raises(InputError, match="no factor is named 'shade'"):
        model(STEP).do({"shade": lambda rng, values: 1})


@pytest.mark.parametrize("game", [stg(), stg_h()], ids=lambda game: game.name)
def test_graphs_of_the_games(game):
    graph, model = game.graph, game.model
    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph.predecessors(model.answer)) == set(model.causes)
    assert set(model.ancestors) == set(model.causes)
    assert len(model.spurious) in (3, 5)
    for name in model.spurious:
        (source,) = graph.predecessors(name)
        assert source in model.causes
        assert not nx.has_path(graph, name, model.answer)
    others = model.named("irrelevant")
    assert all(graph.degree(name) == 0 for name in others)
    assert len(graph) == len(model.causes) + len(model.spurious) + len(others) + 1
