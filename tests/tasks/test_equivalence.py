"""d-separation and Markov equivalence beside brute force, on all graphs of up to five nodes."""

import itertools
from collections import defaultdict

import networkx as nx
import pytest

from cat_jax.tasks.equivalence import equivalent_graphs, independences, v_structures

LETTERS = "ABCDE"


def paths(edges, a, b):
    """All paths between two nodes, whatever the directions of the edges."""
    near = defaultdict(set)
    for x, y in edges:
        near[x].add(y)
        near[y].add(x)

    def walk(path):
        if path[-1] == b:
            yield path
            return
        for node in near[path[-1]] - set(path):
            yield from walk([*path, node])

    return list(walk([a]))


def descendants(edges, node):
    found, new = {node}, {node}
    while new:
        new = {y for x, y in edges if x in new} - found
        found |= new
    return found


def separates(edges, below, path, given):
    """Whether a set blocks a path: by a chain or fork in it, or a collider outside of it."""
    for before, node, after in zip(path, path[1:], path[2:], strict=False):
        is_collider = (before, node) in edges and (after, node) in edges
        if is_collider != bool(given & (below[node] if is_collider else {node})):
            return True
    return False


def brute_force(nodes, edges):
    """All independences, from the definition of d-separation."""
    edges = set(edges)
    below = {node: descendants(edges, node) for node in nodes}
    found = []
    for a, b in itertools.combinations(nodes, 2):
        between = paths(edges, a, b)
        others = [node for node in nodes if node not in (a, b)]
        for size in range(len(others) + 1):
            for given in itertools.combinations(others, size):
                if all(separates(edges, below, path, set(given)) for path in between):
                    found.append((a, b, given))
    return found


def ordered_graphs(count):
    """Every graph of so many nodes, up to their names: edges lead to later letters alone."""
    pairs = list(itertools.combinations(LETTERS[:count], 2))
    for size in range(len(pairs) + 1):
        yield from itertools.combinations(pairs, size)


def test_the_brute_force_knows_the_textbook():
    nodes = "ABC"
    assert brute_force(nodes, [("A", "B"), ("B", "C")]) == [("A", "C", ("B",))]
    assert brute_force(nodes, [("B", "A"), ("B", "C")]) == [("A", "C", ("B",))]
    assert brute_force(nodes, [("A", "B"), ("C", "B")]) == [("A", "C", ())]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_independences_are_those_of_brute_force(count):
    nodes = LETTERS[:count]
    for edges in ordered_graphs(count):
        assert independences(nodes, edges) == brute_force(nodes, edges), edges


def permuted(independent, names):
    """The independences under other names, as a set."""
    return frozenset(
        (frozenset((names[a], names[b])), frozenset(names[x] for x in given))
        for a, b, given in independent
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_equivalent_graphs_have_the_same_independences_and_are_all_that_do(count):
    nodes, classes = LETTERS[:count], defaultdict(set)
    for edges in ordered_graphs(count):
        known = brute_force(nodes, edges)
        for order in itertools.permutations(nodes):
            names = dict(zip(nodes, order, strict=True))
            graph = frozenset((names[a], names[b]) for a, b in edges)
            classes[permuted(known, names)].add(graph)
    assert len(set().union(*classes.values())) == {2: 3, 3: 25, 4: 543}[count]
    for graphs in classes.values():
        for graph in graphs:
            assert {frozenset(x) for x in equivalent_graphs(sorted(graph))} == graphs


@pytest.mark.slow
def test_skeleton_and_v_structures_tell_the_classes_of_five_nodes_apart():
    by_independence, by_structure = defaultdict(set), defaultdict(set)
    for edges in ordered_graphs(5):
        known = brute_force(LETTERS, edges)
        for order in itertools.permutations(LETTERS):
            names = dict(zip(LETTERS, order, strict=True))
            graph = frozenset((names[a], names[b]) for a, b in edges)
            if graph in by_structure["seen"]:
                continue
            by_structure["seen"].add(graph)
            skeleton = frozenset(map(frozenset, graph))
            by_structure[skeleton, v_structures(sorted(graph))].add(graph)
            by_independence[permuted(known, names)].add(graph)
    assert len(by_structure.pop("seen")) == 29_281
    assert set(map(frozenset, by_structure.values())) == set(
        map(frozenset, by_independence.values())
    )
    assert len(by_independence) == 8_782  # Gillispie and Perlman 2001


def test_the_given_graph_is_one_of_its_class():
    edges = [("A", "B"), ("B", "C"), ("D", "C")]
    found = equivalent_graphs(edges)
    assert tuple(edges) in found
    assert len(found) == 2
    assert all(nx.is_directed_acyclic_graph(nx.DiGraph(graph)) for graph in found)
