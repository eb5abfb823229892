"""Causal relations of two variables, and the texts that state and ask them."""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import networkx as nx

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks.equivalence import Independence
from cat_jax.tasks.wording import ANSWER

Holds = Callable[[nx.DiGraph, str, str], bool]


def _is_ancestor(graph: nx.DiGraph, a: str, b: str) -> bool:
    return b in nx.descendants(graph, a)


def _meet(graph: nx.DiGraph, a: str, b: str) -> bool:
    """Tell whether a third variable is reached from each of two without passing the other."""
    without_b = graph.subgraph(set(graph) - {b})
    without_a = graph.subgraph(set(graph) - {a})
    return bool(nx.descendants(without_b, a) & nx.descendants(without_a, b))


RELATIONS: dict[str, tuple[Holds, tuple[str, str]]] = {
    "parent": (
        lambda graph, a, b: graph.has_edge(a, b),
        ("{a} directly causes {b}.", "{a} affects {b} without anything between them."),
    ),
    "ancestor": (
        _is_ancestor,
        ("{a} causes {b}, directly or not.", "Changing {a} would change {b}."),
    ),
    "child": (
        lambda graph, a, b: graph.has_edge(b, a),
        ("{a} is a direct effect of {b}.", "{a} follows from {b} without anything between them."),
    ),
    "descendant": (
        lambda graph, a, b: _is_ancestor(graph, b, a),
        ("{a} is an effect of {b}, direct or not.", "Changing {b} would change {a}."),
    ),
    "collider": (
        _meet,
        (
            "There is a collider of {a} and {b}.",
            "{a}, not through {b}, and {b}, not through {a}, have an effect in common.",
        ),
    ),
    "confounder": (
        lambda graph, a, b: _meet(graph.reverse(copy=False), a, b),
        (
            "There is a confounder of {a} and {b}.",
            "{a}, not through {b}, and {b}, not through {a}, have a cause in common.",
        ),
    ),
}
"""What may hold between two variables, and how it is said; the second wording is not trained."""

_CORRELATES = re.compile(r"(\w) correlates with (\w)\.")
_INDEPENDENT = re.compile(r"(\w) is independent of (\w)(?: given ([\w, ]+))?\.")
_HYPOTHESIS = re.compile(r"Does it follow\? (.*?) Answer: $")


def write(
    nodes: Sequence[str],
    independent: Sequence[Independence],
    relation: str,
    pair: tuple[str, str],
    target: str,
    wording: int = 0,
) -> Record:
    """Write what correlates and what is independent, then the hypothesis.

    The answer depends on the statements about both variables of the hypothesis.
    """
    apart = {(a, b) for a, b, given in independent if not given}
    pairs = itertools.combinations(sorted(nodes), 2)
    statements = [((a, b), f"{a} correlates with {b}.") for a, b in pairs if (a, b) not in apart]
    for a, b, given in independent:
        condition = f" given {', '.join(given)}" if given else ""
        statements.append(((a, b), f"{a} is independent of {b}{condition}."))
    text = f"All that is known of {', '.join(nodes)}: "
    causes = []
    for found, statement in statements:
        if set(found) == set(pair):
            causes.append(Span(statement, len(text)))
        text += f"{statement} "
    hypothesis = RELATIONS[relation][1][wording].format(a=pair[0], b=pair[1])
    text += f"Does it follow? {hypothesis} {ANSWER}"
    return Record(text, target, (Annotation(Span(target, len(text)), tuple(causes)),))


class Question(NamedTuple):
    """What a text says and asks.

    Attributes:
        nodes: Variables, in alphabetical order.
        independent: Their independences.
        relation: Relation of the hypothesis.
        pair: Between which variables.
        wording: Which wording of the relation.
    """

    nodes: list[str]
    independent: list[Independence]
    relation: str
    pair: tuple[str, str]
    wording: int


def read(text: str) -> Question:
    """Read a text back.

    Raises:
        InputError: There is no known hypothesis.
    """
    independent = [
        (m[1], m[2], tuple(m[3].split(", ")) if m[3] else ()) for m in _INDEPENDENT.finditer(text)
    ]
    named = [m.groups()[:2] for m in (*_CORRELATES.finditer(text), *_INDEPENDENT.finditer(text))]
    nodes = sorted({node for pair in named for node in pair})
    asked = _HYPOTHESIS.search(text)
    for relation, (_, wordings) in RELATIONS.items():
        for wording, words in enumerate(wordings):
            pattern = re.escape(words).replace(r"\{a\}", r"(\w)").replace(r"\{b\}", r"(\w)")
            if asked is not None and (match := re.fullmatch(pattern, asked[1])):
                return Question(nodes, independent, relation, (match[1], match[2]), wording)
    raise InputError(f"the text must ask whether a known relation follows but does not: {text!r}")


def find_statements(text: str) -> list[Span]:
    """Return the statements of a text, in its order."""
    found = [
        Span(match[0], match.start())
        for pattern in (_CORRELATES, _INDEPENDENT)
        for match in pattern.finditer(text)
    ]
    return sorted(found, key=lambda span: span.start or 0)
