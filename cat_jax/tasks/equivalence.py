"""Markov equivalence of directed acyclic graphs, by d-separation.

Source: Verma and Pearl, Equivalence and synthesis of causal models (UAI 1990): graphs are
equivalent if they have the same skeleton and the same v-structures.
"""

import itertools
from collections.abc import Collection, Iterable, Sequence
from functools import cache

import networkx as nx

from cat_jax.errors import InputError

Edge = tuple[str, str]
Independence = tuple[str, str, tuple[str, ...]]
"""Two variables and what they are independent given, each in alphabetical order."""


def independences(nodes: Collection[str], edges: Iterable[Edge]) -> list[Independence]:
    """Return all conditional independences of pairs of variables that d-separation implies."""
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    found = []
    for a, b in itertools.combinations(sorted(nodes), 2):
        others = [node for node in sorted(nodes) if node not in (a, b)]
        for size in range(len(others) + 1):
            for given in itertools.combinations(others, size):
                if nx.is_d_separator(graph, {a}, {b}, set(given)):
                    found.append((a, b, given))
    return found


def v_structures(edges: Collection[Edge]) -> frozenset[tuple[str, str, str]]:
    """Return the triples A -> C <- B, A before B, whose ends are not linked."""
    linked = {frozenset(edge) for edge in edges}
    return frozenset(
        (a, c, b)
        for (a, c), (b, d) in itertools.product(edges, repeat=2)
        if c == d and a < b and frozenset((a, b)) not in linked
    )


def equivalent_graphs(edges: Collection[Edge]) -> list[tuple[Edge, ...]]:
    """Return the edges of all graphs of the Markov equivalence class, the given one too."""
    wanted = v_structures(edges)
    orientations = itertools.product(*(((a, b), (b, a)) for a, b in edges))
    return [
        turned
        for turned in orientations
        if v_structures(turned) == wanted and nx.is_directed_acyclic_graph(nx.DiGraph(turned))
    ]


def graph_of(nodes: Sequence[str], independent: Sequence[Independence]) -> list[Edge]:
    """Return the edges of a graph with these independences, by the PC algorithm's first steps.

    Variables that nothing separates are linked; the middle of two links whose ends are separated
    without it is a collider; the other links are directed as some equivalent graph has them.
    """
    separators = {(a, b): set(given) for a, b, given in independent}
    links = [pair for pair in itertools.combinations(sorted(nodes), 2) if pair not in separators]
    linked = {frozenset(link) for link in links}
    wanted = frozenset(
        (a, c, b)
        for (a, b), given in separators.items()
        for c in nodes
        if frozenset((a, c)) in linked and frozenset((b, c)) in linked and c not in given
    )
    return list(_orient(tuple(links), wanted))


@cache
def _orient(links: tuple[Edge, ...], wanted: frozenset[tuple[str, str, str]]) -> tuple[Edge, ...]:
    """Return the first acyclic orientation of the links that has these v-structures alone."""
    for turned in itertools.product(*(((a, b), (b, a)) for a, b in links)):
        if v_structures(turned) == wanted and nx.is_directed_acyclic_graph(nx.DiGraph(turned)):
            return turned
    raise InputError("no causal graph has these independences; check the statements of the text")
