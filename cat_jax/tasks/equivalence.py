"""Markov equivalence of directed acyclic graphs, by d-separation.

Source: Verma and Pearl, Equivalence and synthesis of causal models (UAI 1990): graphs are
equivalent if they have the same skeleton and the same v-structures.
"""

import itertools
from collections.abc import Collection, Iterable

import networkx as nx

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
