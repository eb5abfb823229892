"""Causal-transitivity chains: whether A causes C if A causes B and B causes C.

Source: Vashishtha et al., Teaching Transformers Causal Reasoning through Axiomatic Training (ICML
2025): training on short chains with random edge directions, tests on longer, reversed, branching
and renamed ones. A cause is an ancestor: causation is transitive, and nothing causes itself.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast, get_args

import networkx as nx
import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError, SettingError
from cat_jax.ranges import Count, Range, check_ranges
from cat_jax.tasks.base import TRAIN, VALIDATION, Intervention, Rule, Task
from cat_jax.tasks.edits import draw_order
from cat_jax.tasks.rules import majority_rule
from cat_jax.tasks.streams import random_stream
from cat_jax.tasks.wording import ANSWER

Edge = tuple[str, str]
Shift = Literal["longer", "reversed", "shuffled", "branching", "renamed"]

NAMES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
NEW_NAMES = tuple(f"{a}{b}{c}" for a in "bdgk" for b in "aeiou" for c in "lmnr")
SHORT, LONG = (3, 6), (7, 12)
"""Fewest and most nodes of a graph."""
YES, NO = "Yes", "No"

_PREMISE = re.compile(r"(\w+) causes (\w+)\.")
_QUESTION = re.compile(r"Does (\w+) cause (\w+)\?")


def draw_chain(rng: np.random.Generator, names: list[str], flips: float) -> list[Edge]:
    """Link nodes in a row; each edge points backwards with probability ``flips``."""
    return [(b, a) if rng.random() < flips else (a, b) for a, b in itertools.pairwise(names)]


def draw_branches(rng: np.random.Generator, names: list[str]) -> list[Edge]:
    """Give every node but the first a parent or two among those before it."""
    edges = []
    for place in range(1, len(names)):
        count = min(place, int(rng.integers(1, 3)))
        parents = rng.choice(place, count, replace=False)
        edges += [(names[parent], names[place]) for parent in sorted(parents.tolist())]
    return edges


def causes(edges: list[Edge], cause: str, effect: str) -> bool:
    """Tell whether a directed path leads from one node to another."""
    graph = nx.DiGraph(edges)
    return cause != effect and nx.has_path(graph, cause, effect)


def used_premises(edges: list[Edge], cause: str, effect: str) -> list[bool]:
    """Tell of each premise whether the answer depends on it.

    A "Yes" depends on the premises of all directed paths from one node to the other. A "No"
    depends on all premises that lead on from the first node, none of which arrives; where there
    is none, on those that lead to the second; else on all.
    """
    graph = nx.DiGraph(edges)
    after = {cause, *nx.descendants(graph, cause)}
    before = {effect, *nx.ancestors(graph, effect)}
    if causes(edges, cause, effect):
        return [a in after and b in before for a, b in edges]
    used = [a in after for a, b in edges]
    if not any(used):
        used = [b in before for a, b in edges]
    return used if any(used) else [True] * len(edges)


def write(edges: list[Edge], cause: str, effect: str) -> Record:
    """Write premises in their order, and the question; annotate what ``used_premises`` tells."""
    text, spans = "", []
    for (a, b), is_used in zip(edges, used_premises(edges, cause, effect), strict=True):
        premise = f"{a} causes {b}."
        if is_used:
            spans.append(Span(premise, len(text)))
        text += f"{premise} "
    text += f"Does {cause} cause {effect}? {ANSWER}"
    answer = YES if causes(edges, cause, effect) else NO
    return Record(text, answer, (Annotation(Span(answer, len(text)), tuple(spans)),))


def read(text: str) -> tuple[list[Edge], str, str]:
    """Read premises and question back from a text.

    Raises:
        InputError: It asks nothing.
    """
    asked = _QUESTION.search(text)
    if asked is None:
        raise InputError(f"the text must ask 'Does X cause Y?' but does not: {text!r}")
    return [(m[1], m[2]) for m in _PREMISE.finditer(text)], asked[1], asked[2]


@dataclass(frozen=True, kw_only=True)
class Chains(Task):
    """Does one node cause another, through others? Trained on chains of 3 to 6 nodes.

    Half of the answers of every split are "Yes". "iid" is drawn like training; "longer" has 7 to
    12 nodes, "reversed" chains all of whose edges point backwards, "shuffled" premises in any
    order, "branching" graphs with several paths, "renamed" names that training never showed.

    Attributes:
        train_records: Records in the training set.
        test_records: Records in each test set, and in the validation set.
        flips: Share of training edges that point backwards.
        shifts: Test sets out of distribution. A model from scratch cannot read "renamed".
    """

    train_records: Count = 4_000
    test_records: Count = 400
    flips: Annotated[float, Range(ge=0, le=1)] = 0.5
    shifts: tuple[Shift, ...] = get_args(Shift)

    name: ClassVar[str] = "chains"

    def __post_init__(self):
        check_ranges(self, "data")
        if len(set(self.shifts)) < len(self.shifts):
            raise SettingError("data.shifts", f"must be different, got {', '.join(self.shifts)}")

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return (TRAIN, VALIDATION, "iid", *self.shifts)

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Return the first records of the split's stream."""
        count = self.train_records if split == TRAIN else self.test_records
        return list(itertools.islice(self.stream(split, seed), count))

    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split; "Yes" and "No" take turns."""
        rng = random_stream(self.name, split, seed)
        for number in itertools.count():
            edges = self._draw_edges(split, rng)
            nodes = list(dict.fromkeys(node for edge in edges for node in edge))
            pairs = [
                (a, b)
                for a, b in itertools.permutations(nodes, 2)
                if causes(edges, a, b) == (number % 2 == 0)
            ]
            # Any graph with an edge has a pair of either kind: its edges and their reverses.
            yield write(edges, *pairs[rng.integers(len(pairs))])

    def _draw_edges(self, split: str, rng: np.random.Generator) -> list[Edge]:
        low, high = LONG if split == "longer" else SHORT
        pool = NEW_NAMES if split == "renamed" else NAMES
        count = int(rng.integers(low, high + 1))
        names = [pool[i] for i in rng.permutation(len(pool))[:count].tolist()]
        if split == "branching":
            return draw_branches(rng, names)
        edges = draw_chain(rng, names, flips=1.0 if split == "reversed" else self.flips)
        if split == "shuffled":
            edges = [edges[i] for i in rng.permutation(len(edges)).tolist()]
        return edges

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return the premises that the answer does not depend on."""
        assert isinstance(record, Record)
        used = {span.start for note in record.important for span in note.causes}
        premises = (Span(m[0], m.start()) for m in _PREMISE.finditer(record.input))
        return [span for span in premises if span.start not in used]

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return edits by name; the new answer is read off the new graph.

        "spurious" renames the nodes, "rename" with names of the other kind ("A" or "bal");
        "causal" turns a premise that the answer depends on, "irrelevant" another one without
        which the answer is the same; "reorder" permutes the premises.
        """
        return {
            "spurious": rename,
            "causal": turn,
            "irrelevant": turn_unused,
            "reorder": reorder,
            "rename": rename_unlike,
        }

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the oracle, the shortcut (what is named first causes), and the majority."""
        training = list(itertools.islice(self.stream(TRAIN, seed), self.train_records))
        return {
            "oracle": lambda record: YES if causes(*read(record.input)) else NO,
            "shortcut": named_first,
            "majority": majority_rule(training),
        }


def rename(record: Record, rng: np.random.Generator) -> Record:
    """Give the nodes other names of the same kind; the answer stays what it is."""
    edges, cause, effect = read(record.input)
    return _renamed(edges, cause, effect, NEW_NAMES if cause in NEW_NAMES else NAMES, rng)


def rename_unlike(record: Record, rng: np.random.Generator) -> Record:
    """Give the nodes names of the other kind: new ones for letters, letters for new ones."""
    edges, cause, effect = read(record.input)
    return _renamed(edges, cause, effect, NAMES if cause in NEW_NAMES else NEW_NAMES, rng)


def _renamed(
    edges: list[Edge], cause: str, effect: str, pool: tuple[str, ...], rng: np.random.Generator
) -> Record:
    nodes = list(dict.fromkeys(node for edge in edges for node in edge))
    drawn = [pool[i] for i in rng.permutation(len(pool))[: len(nodes)].tolist()]
    new = dict(zip(nodes, drawn, strict=True))
    renamed = [cast("Edge", (new[a], new[b])) for a, b in edges]
    return write(renamed, new[cause], new[effect])


def turn(record: Record, rng: np.random.Generator) -> Record:
    """Turn one premise that the answer depends on; the new record has the new answer."""
    edges, cause, effect = read(record.input)
    used = used_premises(edges, cause, effect)
    # Of a path one edge at least can be turned: the one without a way around it.
    turned = [found for found, is_used in zip(_turned(edges), used, strict=True) if is_used]
    acyclic = [found for found in turned if nx.is_directed_acyclic_graph(nx.DiGraph(found))]
    return write(acyclic[rng.integers(len(acyclic))], cause, effect)


def turn_unused(record: Record, rng: np.random.Generator) -> Record:
    """Turn one premise that the answer does not depend on, and that does not change it.

    A record without such a premise stays as it is.
    """
    edges, cause, effect = read(record.input)
    used = used_premises(edges, cause, effect)
    same = [
        found
        for found, is_used in zip(_turned(edges), used, strict=True)
        if not is_used
        and nx.is_directed_acyclic_graph(nx.DiGraph(found))
        and causes(found, cause, effect) == causes(edges, cause, effect)
    ]
    return write(same[rng.integers(len(same))], cause, effect) if same else record


def _turned(edges: list[Edge]) -> list[list[Edge]]:
    """Return the premises with each of them turned in turn."""
    return [
        [(b, a) if i == turned else edge for i, edge in enumerate(edges)]
        for turned, (a, b) in enumerate(edges)
    ]


def reorder(record: Record, rng: np.random.Generator) -> Record:
    """State the premises in another order; the answer stays what it is."""
    edges, cause, effect = read(record.input)
    return write([edges[n] for n in draw_order(len(edges), rng)], cause, effect)


def named_first(record: Record) -> str:
    """Answer as if every edge pointed from the node that is named first."""
    edges, cause, effect = read(record.input)
    nodes = [node for edge in edges for node in edge]
    return YES if nodes.index(cause) < nodes.index(effect) else NO
