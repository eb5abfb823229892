"""From correlation to causation: whether a relation follows from what correlates with what.

Source: Jin et al., Can Large Language Models Infer Causation from Correlation? (ICLR 2024). A
relation follows if it holds in every graph that is Markov equivalent to the drawn one.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import networkx as nx
import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from cat_jax.tasks.base import TRAIN, VALIDATION, Intervention, Rule, Task
from cat_jax.tasks.equivalence import (
    Edge,
    Independence,
    equivalent_graphs,
    independences,
)
from cat_jax.tasks.rules import majority_rule
from cat_jax.tasks.streams import random_stream
from cat_jax.tasks.wording import ANSWER

YES, NO = "Yes", "No"
NAMES, NEW_NAMES = "ABCDEFGHIJKLM", "NOPQRSTUVWXYZ"

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


@cache
def follows(nodes: tuple[str, ...], edges: tuple[Edge, ...]) -> frozenset[tuple[str, str, str]]:
    """Return each relation, with its pair, that holds in every equivalent graph."""
    found = None
    for turned in equivalent_graphs(edges):
        graph = nx.DiGraph(turned)
        graph.add_nodes_from(nodes)
        here = {
            (relation, a, b)
            for relation, (check, _) in RELATIONS.items()
            for a, b in itertools.permutations(nodes, 2)
            if check(graph, a, b)
        }
        found = here if found is None else found & here
    assert found is not None  # a graph is equivalent to itself
    return frozenset(found)


_independences = cache(independences)


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


@dataclass(frozen=True, kw_only=True)
class Corr2Cause(Task):
    """Whether a causal relation follows from correlations and independences.

    Half of the answers of every split are "Yes". Trained on three and four variables; "larger"
    has five, "renamed" names, and "paraphrased" hypotheses in words, that training never showed.

    Attributes:
        train_records: Records in the training set.
        test_records: Records in each test set, and in the validation set.
    """

    train_records: Count = 4_000
    test_records: Count = 400

    name: ClassVar[str] = "corr2cause"

    def __post_init__(self):
        check_ranges(self, "data")

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return (TRAIN, VALIDATION, "iid", "larger", "renamed", "paraphrased")

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Return the first records of the split's stream."""
        count = self.train_records if split == TRAIN else self.test_records
        return list(itertools.islice(self.stream(split, seed), count))

    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split; "Yes" and "No" take turns."""
        rng = random_stream(self.name, split, seed)
        wording = int(split == "paraphrased")
        for number in itertools.count():
            target = YES if number % 2 == 0 else NO
            relation = tuple(RELATIONS)[rng.integers(len(RELATIONS))]
            pair = None
            while pair is None:
                nodes, edges = _draw_graph(rng, larger=split == "larger")
                pair = _draw_pair(rng, nodes, edges, relation, target)
            pool = NEW_NAMES if split == "renamed" else NAMES
            names = _draw_names(rng, nodes, pool)
            known = renamed(_independences(nodes, edges), names)
            asked = names[pair[0]], names[pair[1]]
            yield write(sorted(names.values()), known, relation, asked, target, wording)

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return the statements that are not about both variables of the hypothesis."""
        assert isinstance(record, Record)
        used = {span.start for note in record.important for span in note.causes}
        found = (
            Span(m[0], m.start())
            for pattern in (_CORRELATES, _INDEPENDENT)
            for m in pattern.finditer(record.input)
        )
        return sorted((s for s in found if s.start not in used), key=lambda span: span.start or 0)

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return "spurious", which renames the variables."""
        return {"spurious": rename}

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the oracle, the shortcut (correlated, so it follows), and the majority."""
        training = list(itertools.islice(self.stream(TRAIN, seed), min(self.train_records, 500)))
        return {
            "oracle": oracle,
            "shortcut": correlated,
            "majority": majority_rule(training),
        }


def _draw_graph(
    rng: np.random.Generator, *, larger: bool
) -> tuple[tuple[str, ...], tuple[Edge, ...]]:
    """Draw variables "0", "1", ... and, with probability one half, an edge for each pair."""
    nodes = tuple(map(str, range(5 if larger else int(rng.integers(3, 5)))))
    order = [nodes[i] for i in rng.permutation(len(nodes)).tolist()]
    return nodes, tuple(pair for pair in itertools.combinations(order, 2) if rng.random() < 0.5)


def _draw_pair(
    rng: np.random.Generator,
    nodes: tuple[str, ...],
    edges: tuple[Edge, ...],
    relation: str,
    target: str,
) -> tuple[str, str] | None:
    """Draw a pair for which the relation has this answer, if there is one."""
    found = follows(nodes, edges)
    pairs = [
        (a, b)
        for a, b in itertools.permutations(nodes, 2)
        if ((relation, a, b) in found) == (target == YES)
    ]
    return pairs[rng.integers(len(pairs))] if pairs else None


def _draw_names(rng: np.random.Generator, nodes: Sequence[str], pool: str) -> dict[str, str]:
    drawn = [pool[i] for i in rng.permutation(len(pool))[: len(nodes)].tolist()]
    return dict(zip(nodes, drawn, strict=True))


def renamed(independent: Sequence[Independence], names: Mapping[str, str]) -> list[Independence]:
    """Rename the variables of independences; pairs and conditions in alphabetical order again."""
    found = []
    for a, b, given in independent:
        first, second = sorted((names[a], names[b]))
        found.append((first, second, tuple(sorted(names[node] for node in given))))
    return sorted(found, key=lambda x: (x[0], x[1], len(x[2]), x[2]))


def rename(record: Record, rng: np.random.Generator) -> Record:
    """Give the variables other names; the answer stays what it is."""
    nodes, independent, relation, (a, b), wording = read(record.input)
    names = _draw_names(rng, nodes, NEW_NAMES if nodes[0] in NEW_NAMES else NAMES)
    pair = names[a], names[b]
    known = renamed(independent, names)
    return write(sorted(names.values()), known, relation, pair, record.target, wording)


def oracle(record: Record) -> str:
    """Find a graph with the independences of the text, and look at all that are equivalent."""
    nodes, independent, relation, pair, _ = read(record.input)
    found = follows(tuple(nodes), tuple(graph_of(nodes, independent)))
    return YES if (relation, *pair) in found else NO


def correlated(record: Record) -> str:
    """Take every correlation for causation."""
    asked = read(record.input)
    return NO if (*sorted(asked.pair), ()) in asked.independent else YES
