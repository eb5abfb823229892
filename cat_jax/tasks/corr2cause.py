"""From correlation to causation: whether a relation follows from what correlates with what.

Source: Jin et al., Can Large Language Models Infer Causation from Correlation? (ICLR 2024). A
relation follows if it holds in every graph that is Markov equivalent to the drawn one.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import networkx as nx
import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record, Span
from cat_jax.ranges import Count, check_ranges
from cat_jax.tasks.base import TRAIN, VALIDATION, Intervention, Rule, Task
from cat_jax.tasks.corr2cause_texts import RELATIONS, Question, find_statements, read, write
from cat_jax.tasks.edits import draw_order, reorder_text
from cat_jax.tasks.equivalence import (
    Edge,
    Independence,
    equivalent_graphs,
    graph_of,
    independences,
)
from cat_jax.tasks.rules import majority_rule
from cat_jax.tasks.streams import random_stream

YES, NO = "Yes", "No"
NAMES, NEW_NAMES = "ABCDEFGHIJKLM", "NOPQRSTUVWXYZ"


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
        return [span for span in find_statements(record.input) if span.start not in used]

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return edits by name, none of which changes the answer.

        "spurious" renames the variables, "rename" with letters of the other half of the alphabet;
        "reorder" permutes the statements. No statement can be changed alone: "causal" is missing.
        """
        return {"spurious": rename, "reorder": reorder, "rename": rename_unlike}

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
    """Give the variables other names of the same half of the alphabet."""
    asked = read(record.input)
    return _renamed(asked, record.target, NEW_NAMES if asked.nodes[0] in NEW_NAMES else NAMES, rng)


def rename_unlike(record: Record, rng: np.random.Generator) -> Record:
    """Give the variables names of the other half of the alphabet."""
    asked = read(record.input)
    return _renamed(asked, record.target, NAMES if asked.nodes[0] in NEW_NAMES else NEW_NAMES, rng)


def _renamed(asked: Question, target: str, pool: str, rng: np.random.Generator) -> Record:
    names = _draw_names(rng, asked.nodes, pool)
    known = renamed(asked.independent, names)
    pair = names[asked.pair[0]], names[asked.pair[1]]
    return write(sorted(names.values()), known, asked.relation, pair, target, asked.wording)


def reorder(record: Record, rng: np.random.Generator) -> Record:
    """State what is known in another order."""
    spans = find_statements(record.input)
    parts = [range(span.start or 0, (span.start or 0) + len(span.text)) for span in spans]
    return reorder_text(record, parts, draw_order(len(parts), rng))


def oracle(record: Record) -> str:
    """Find a graph with the independences of the text, and look at all that are equivalent."""
    nodes, independent, relation, pair, _ = read(record.input)
    found = follows(tuple(nodes), tuple(graph_of(nodes, independent)))
    return YES if (relation, *pair) in found else NO


def correlated(record: Record) -> str:
    """Take every correlation for causation."""
    asked = read(record.input)
    return NO if (*sorted(asked.pair), ()) in asked.independent else YES
