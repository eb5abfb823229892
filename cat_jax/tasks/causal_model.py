"""Structural causal models: factors drawn from their parents, an answer, and interventions.

Source: Pearl, Causality (2009), chapters 1 and 3; ``do`` replaces mechanisms and cuts their edges.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import networkx as nx
import numpy as np

from cat_jax.errors import InputError

Values = Mapping[str, float]
"""Factors by name."""
Mechanism = Callable[[np.random.Generator, Values], float]
"""Draws a factor, given those drawn before it."""
Role = Literal["cause", "mediator", "confounder", "twin", "collider", "irrelevant", "hidden"]

SPURIOUS_ROLES: tuple[Role, ...] = ("twin", "collider")


@dataclass(frozen=True)
class Factor:
    """A variable of a causal model.

    Attributes:
        name: Name in the text.
        role: What it is to the answer; "hidden" factors do not stand in the text.
        draw: Its mechanism, with its noise.
        parents: What the mechanism reads.
    """

    name: str
    role: Role
    draw: Mechanism
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class CausalModel:
    """Factors, parents first, and the answer that some of them decide.

    Attributes:
        factors: Factors in the order in which they are drawn.
        causes: Parents of the answer, without the hidden ones.
        judge: The answer's mechanism: values, perhaps without the hidden ones, to the answer.
        answer: Name of the answer in the graph.

    Raises:
        InputError: Two factors of one name, or a parent that is not drawn before its child.
    """

    factors: tuple[Factor, ...]
    causes: tuple[str, ...]
    judge: Callable[[Values], str]
    answer: str = "answer"

    def __post_init__(self):
        drawn: set[str] = {self.answer}
        for factor in self.factors:
            if factor.name in drawn:
                raise InputError(f"two factors are named {factor.name!r}; rename one of them")
            for parent in factor.parents:
                if parent not in drawn - {self.answer}:
                    raise InputError(
                        f"factor {factor.name!r} is drawn before its parent {parent!r}; list "
                        "parents first"
                    )
            drawn.add(factor.name)
        missing = set(self.causes) - drawn
        if missing:
            raise InputError(f"cause {min(missing)!r} is no factor; add it to the factors")

    def named(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of the factors of some roles, in the order of drawing."""
        return tuple(factor.name for factor in self.factors if factor.role in roles)

    @property
    def spurious(self) -> tuple[str, ...]:
        """Return the factors that follow the answer's causes and do not matter to it."""
        return self.named(*SPURIOUS_ROLES)

    @property
    def ancestors(self) -> tuple[str, ...]:
        """Return all factors with a directed path to the answer, hidden ones left out."""
        found = nx.ancestors(self.graph, self.answer)
        return tuple(name for name in self.shown if name in found)

    @property
    def graph(self) -> nx.DiGraph:
        """Return the causal graph; every node has its ``role``, the answer's is "answer"."""
        graph = nx.DiGraph()
        for factor in self.factors:
            graph.add_node(factor.name, role=factor.role)
            graph.add_edges_from((parent, factor.name) for parent in factor.parents)
        graph.add_node(self.answer, role="answer")
        parents = (*self.causes, *self.named("hidden"))
        graph.add_edges_from((parent, self.answer) for parent in parents)
        return graph

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw all factors, hidden ones too, in their order."""
        values: dict[str, float] = {}
        for factor in self.factors:
            values[factor.name] = factor.draw(rng, values)
        return values

    def do(self, mechanisms: Mapping[str, Mechanism]) -> "CausalModel":
        """Return the model after an intervention: these factors no longer listen to parents.

        Raises:
            InputError: No such factor.
        """
        unknown = set(mechanisms) - {factor.name for factor in self.factors}
        if unknown:
            raise InputError(f"no factor is named {min(unknown)!r}; name one of the model's")
        return replace(
            self,
            factors=tuple(
                replace(factor, draw=mechanisms[factor.name], parents=())
                if factor.name in mechanisms
                else factor
                for factor in self.factors
            ),
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the factors that stand in the text: all but the hidden ones."""
        return tuple(factor.name for factor in self.factors if factor.role != "hidden")
