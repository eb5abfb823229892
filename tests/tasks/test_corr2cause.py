import itertools
import zlib

import networkx as nx
import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.tasks import corr2cause, score_rules
from cat_jax.tasks.corr2cause import NAMES, NEW_NAMES, follows
from cat_jax.tasks.corr2cause_texts import RELATIONS, read, write
from cat_jax.tasks.equivalence import equivalent_graphs, graph_of, independences

TASK = corr2cause(train_records=120, test_records=60)


def test_textbook_relations():
    chain = follows(("A", "B", "C"), (("A", "B"), ("B", "C")))
    assert not chain  # any direction of a chain may be the true one, so nothing follows
    collider = follows(("A", "B", "C"), (("A", "B"), ("C", "B")))
    assert collider == {
        *(("parent", x, "B") for x in "AC"),
        *(("ancestor", x, "B") for x in "AC"),
        *(("child", "B", x) for x in "AC"),
        *(("descendant", "B", x) for x in "AC"),
        *(("collider", a, b) for a, b in ("AC", "CA")),
    }
    # Y: what a collider causes is directed too, and its causes are confounded with nothing.
    tail = follows(("A", "B", "C", "D"), (("A", "B"), ("C", "B"), ("B", "D")))
    assert ("parent", "B", "D") in tail
    assert ("ancestor", "A", "D") in tail
    assert not [x for x in tail if x[0] == "confounder"]
    # A -> B <- C, A -> D <- E: B and D have the cause A in common.
    fork = (("A", "B"), ("C", "B"), ("A", "D"), ("E", "D"))
    assert ("confounder", "B", "D") in follows(tuple("ABCDE"), fork)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_graph_is_found_from_its_independences_alone(count):
    nodes = "ABCD"[:count]
    pairs = list(itertools.combinations(nodes, 2))
    for size in range(len(pairs) + 1):
        for edges in itertools.combinations(pairs, size):
            found = graph_of(nodes, independences(nodes, edges))
            same = {frozenset(x) for x in equivalent_graphs(edges)}
            assert frozenset(found) in same, edges


def test_statements_that_no_graph_has_are_refused():
    known = [("A", "C", ()), ("B", "D", ())]  # a square with two contradicting colliders each
    with pytest.raises(InputError, match="no causal graph has these independences"):
        graph_of("ABCD", known)


@pytest.mark.parametrize("split", TASK.splits)
def test_records_are_right_balanced_and_read_back(split):
    records = TASK.records(split)
    answers = [record.target for record in records]
    assert answers.count("Yes") == len(answers) / 2
    for record in records:
        asked = read(record.input)
        edges = graph_of(asked.nodes, asked.independent)
        graphs = [nx.DiGraph(x) for x in equivalent_graphs(edges)]
        for graph in graphs:
            graph.add_nodes_from(asked.nodes)
        check = RELATIONS[asked.relation][0]
        assert all(check(g, *asked.pair) for g in graphs) == (record.target == "Yes")
        names = NEW_NAMES if split == "renamed" else NAMES
        assert set(asked.nodes) <= set(names)
        assert len(asked.nodes) == 5 if split == "larger" else len(asked.nodes) in (3, 4)
        assert asked.wording == (split == "paraphrased")
        assert write(*asked[:4], record.target, asked.wording) == record


def test_annotated_are_the_statements_about_both_variables():
    for record in TASK.records("iid"):
        a, b = read(record.input).pair
        (note,) = record.important
        assert note.effect.text == record.target
        for span in (*note.causes, *TASK.spurious_spans(record)):
            assert record.input.startswith(span.text, span.start)
        assert note.causes
        for span in note.causes:
            assert {a, b} == set(span.text.split(" given ")[0].rstrip(".").split()) & {a, b}
        others = [span.text.split(" given ")[0] for span in TASK.spurious_spans(record)]
        assert all(not {a, b} <= set(text.rstrip(".").split()) for text in others)
        statements = record.input.count(" correlates ") + record.input.count(" independent ")
        assert len(note.causes) + len(others) == statements


def test_other_names_do_not_change_the_answer():
    rng, changed = np.random.default_rng(0), 0
    rule = TASK.reference_rules()["oracle"]
    for record in TASK.records("paraphrased"):
        new = TASK.interventions["spurious"](record, rng)
        changed += new.input != record.input
        assert rule(new) == new.target == record.target
        assert len(new.important[0].causes) == len(record.important[0].causes)
        assert read(new.input).wording == 1
    assert changed > 50


def test_reference_rules():
    scores = score_rules(TASK)
    assert set(scores["oracle"].values()) == {1.0}
    assert set(scores["majority"].values()) == {0.5}
    assert all(0.5 < share < 0.8 for share in scores["shortcut"].values())


def test_splits_share_few_records():
    train = {record.input for record in TASK.records("train")}
    iid = [record.input in train for record in TASK.records("iid")]
    assert np.mean(iid) < 0.1


def test_a_text_without_question():
    with pytest.raises(InputError, match="must ask whether a known relation follows"):
        read("A correlates with B. Does it follow? A is nice to B. Answer: ")


def test_records_of_a_seed_never_change():
    texts = [r.text + r.target for split in TASK.splits for r in TASK.records(split, 3)[:20]]
    assert zlib.crc32("".join(texts).encode()) == 3702103285
