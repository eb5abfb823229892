"""Draws of random causal models: the family behind ``SCM``.

Causes, confounders and distractors are whole numbers from 1 to 10. A twin copies a cause (or what
confounds it), a collider adds a cause and a distractor, a mediator stands between a cause and the
answer. ``shift`` returns the same model out of distribution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cat_jax.tasks.causal_model import CausalModel, Factor, Mechanism, Values
from cat_jax.tasks.scm.answers import Answer

Shift = Literal["ood", "reversed", "range", "mechanism"]
"""``ood``: do(spurious factors), drawn as in training but of nothing. ``reversed``: they copy high
values as low ones. ``range``: do(spurious factors), from a range that training never showed, as
in STG_H. ``mechanism``: every mechanism but the answer's is another one: causes are no longer
uniform, twins copy other factors in other ways."""

LOW, HIGH = 1, 10
FOLLOWS = 0.75  # how often a cause repeats what confounds it

COPIES: tuple[Callable[[float], float], ...] = (
    lambda x: x,
    lambda x: 3 * x // 2,
    lambda x: 2 * x,
    lambda x: x + 3,
    lambda x: 12 - x,
)

NAMES = (
    *("Rainfall", "Traffic", "Altitude", "Humidity", "Salinity", "Vibration", "Pressure", "Noise"),
    *("Turbidity", "Voltage", "Latency", "Porosity", "Density", "Friction", "Inflation", "Glare"),
    *("Torque", "Acidity", "Insulation", "Footfall", "Subsidy", "Drought", "Pollen", "Wear"),
    *("Fatigue", "Tariff", "Moisture", "Ozone", "Runoff", "Shade", "Backlog", "Tension"),
    *("Dosage", "Hardness", "Viscosity", "Rent", "Tempo", "Yeast", "Wages", "Bandwidth"),
)
OUTCOMES = ("risk", "demand", "yield", "cost", "output", "failure rate", "quality", "delay")


@dataclass(frozen=True)
class Spurious:
    """How a spurious factor comes about.

    Attributes:
        sources: What it copies: one factor of a twin, a cause and a distractor of a collider.
        copy: The copy of their sum.
        strength: How often it copies them; otherwise it copies other values, drawn alike.
    """

    sources: tuple[str, ...]
    copy: Callable[[float], float]
    strength: float

    def follow(self, rng: np.random.Generator, values: Values) -> float:
        """Copy the sources, or with probability 1 - strength redrawn ones."""
        redrawn = self.redraw(rng, values)
        if rng.random() >= self.strength:
            return redrawn
        return self.copy(sum(values[name] for name in self.sources))

    def undo(self, value: float) -> float:
        """Return the mean of the sources that give this value, or the nearest one."""
        count = len(self.sources)
        sums = range(count * LOW, count * HIGH + 1)
        return min(sums, key=lambda total: abs(self.copy(total) - value)) / count

    def reverse(self, rng: np.random.Generator, values: Values) -> float:
        """Copy the sources turned around: what was high is low."""
        mirrored = {name: LOW + HIGH - values[name] for name in self.sources}
        return self.follow(rng, {**values, **mirrored})

    def redraw(self, rng: np.random.Generator, values: Values) -> float:
        """Draw it as in training, but of nothing."""
        return self.copy(sum(uniform(rng, values) for _ in self.sources))

    def redraw_elsewhere(self, rng: np.random.Generator, values: Values) -> float:
        """Draw it of nothing, from a range that training never showed."""
        return self.copy(sum(uniform(rng, values) + 2 * HIGH for _ in self.sources))


@dataclass(frozen=True)
class Drawn:
    """A drawn model.

    Attributes:
        model: Causal model in distribution.
        spurious: Its spurious factors by name.
        answer: The answer's mechanism.
    """

    model: CausalModel
    spurious: dict[str, Spurious]
    answer: Answer

    @property
    def outcome(self) -> str:
        """Return the name of the answer."""
        return self.model.answer


@dataclass(frozen=True)
class Sizes:
    """Numbers of factors of each kind; the strength of every twin."""

    causes: int
    mediators: int
    confounders: int
    colliders: int
    distractors: int
    strengths: tuple[float, ...]


def uniform(rng: np.random.Generator, values: Values) -> float:
    """Draw a whole number from 1 to 10."""
    return int(rng.integers(LOW, HIGH + 1))


def _upper(rng: np.random.Generator, values: Values) -> float:
    return max(uniform(rng, values), uniform(rng, values))


def _repeat(name: str) -> Mechanism:
    """Repeat a confounder, mostly."""

    def draw(rng: np.random.Generator, values: Values) -> float:
        other = uniform(rng, values)
        return values[name] if rng.random() < FOLLOWS else other

    return draw


def _mediate(name: str) -> Mechanism:
    return lambda rng, values: values[name] + int(rng.integers(0, 3))


def _weaken(name: str) -> Mechanism:
    """The other mechanism of a mediator: one unit below what it was."""
    return lambda rng, values: values[name] + int(rng.integers(-1, 2))


def draw_factors(
    sizes: Sizes, rng: np.random.Generator
) -> tuple[list[Factor], dict[str, Spurious], tuple[str, ...]]:
    """Draw names and mechanisms of all factors.

    Returns:
        Factors, parents first; the spurious ones; the parents of the answer.
    """
    names = iter(np.array(NAMES)[rng.permutation(len(NAMES))].tolist())
    confounders = [next(names) for _ in range(sizes.confounders)]
    roots = [next(names) for _ in range(sizes.causes)]
    factors = [Factor(name, "confounder", uniform) for name in confounders]
    for number, name in enumerate(roots):
        above = tuple(confounders[number : number + 1])
        draw = _repeat(above[0]) if above else uniform
        factors.append(Factor(name, "cause", draw, above))
    mediators = [next(names) for _ in range(sizes.mediators)]
    for root, name in zip(roots, mediators, strict=False):
        factors.append(Factor(name, "mediator", _mediate(root), (root,)))
    distractors = [next(names) for _ in range(sizes.distractors)]
    factors += [Factor(name, "irrelevant", uniform) for name in distractors]
    spurious: dict[str, Spurious] = {}
    for number, strength in enumerate(sizes.strengths):
        is_confounded = number < len(confounders)
        source = confounders[number] if is_confounded else roots[number % len(roots)]
        copy = COPIES[rng.integers(len(COPIES))]
        spurious[name := next(names)] = Spurious((source,), copy, strength)
        factors.append(Factor(name, "twin", spurious[name].follow, (source,)))
    for number in range(sizes.colliders):
        sources = (roots[number % len(roots)], distractors[number % len(distractors)])
        spurious[name := next(names)] = Spurious(sources, COPIES[0], 1.0)
        factors.append(Factor(name, "collider", spurious[name].follow, sources))
    parents = (*mediators, *roots[len(mediators) :])
    return factors, spurious, parents


def sample_values(
    factors: Sequence[Factor], count: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Draw factors from the training distribution."""
    rows = []
    for _ in range(count):
        values: dict[str, float] = {}
        for factor in factors:
            values[factor.name] = factor.draw(rng, values)
        rows.append(values)
    return rows


def shifted(drawn: Drawn, kind: Shift) -> CausalModel:
    """Return the model out of distribution; the answer's mechanism stays what it is."""
    model, spurious = drawn.model, drawn.spurious
    if kind == "ood":
        return model.do({name: how.redraw for name, how in spurious.items()})
    if kind == "range":
        return model.do({name: how.redraw_elsewhere for name, how in spurious.items()})
    if kind == "reversed":
        return _replaced(
            model, {name: (how.reverse, how.sources) for name, how in spurious.items()}
        )
    return _replaced(model, _other_mechanisms(drawn))


def guess_parents(drawn: Drawn, values: Values) -> dict[str, float]:
    """Guess the answer's parents from the spurious factors, as if each copied its sources."""
    guesses: dict[str, list[float]] = {}
    for name, how in drawn.spurious.items():
        guess = how.undo(values[name])
        for source in how.sources:
            guesses.setdefault(source, []).append(guess)
    guessed = {name: sum(found) / len(found) for name, found in guesses.items()}
    middle = (LOW + HIGH) / 2
    for factor in drawn.model.factors:  # parents first
        if factor.name not in guessed and factor.role in ("cause", "mediator"):
            above = guessed[factor.parents[0]] if factor.parents else middle
            guessed[factor.name] = above + (factor.role == "mediator")
    return {name: round(guessed[name]) for name in drawn.model.causes}


def _other_mechanisms(drawn: Drawn) -> dict[str, tuple[Mechanism, tuple[str, ...]]]:
    """Draw causes towards high values, mediators lower, and let twins copy other factors."""
    changed: dict[str, tuple[Mechanism, tuple[str, ...]]] = {}
    for factor in drawn.model.factors:
        if factor.role in ("cause", "confounder") and not factor.parents:
            changed[factor.name] = (_upper, ())
        elif factor.role == "mediator":
            changed[factor.name] = (_weaken(factor.parents[0]), factor.parents)
    twins = drawn.model.named("twin")
    others = [drawn.spurious[name].sources for name in (*twins[1:], *twins[:1])]
    for name, sources in zip(twins, others, strict=True):
        old = drawn.spurious[name]
        other = COPIES[(COPIES.index(old.copy) + 2) % len(COPIES)]
        changed[name] = (Spurious(sources, other, old.strength).follow, sources)
    return changed


def _replaced(
    model: CausalModel, changed: dict[str, tuple[Mechanism, tuple[str, ...]]]
) -> CausalModel:
    factors = (
        replace(factor, draw=changed[factor.name][0], parents=changed[factor.name][1])
        if factor.name in changed
        else factor
        for factor in model.factors
    )
    return replace(model, factors=tuple(factors))
