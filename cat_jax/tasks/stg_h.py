"""STG_H: the harder Spurious Token Game, where the answer is an air quality index (AQI).

Source: CAT (Han et al., EMNLP 2025); ranges, noise and weights are estimated from the
published rows, and the round numbers below reproduce every one of their answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.causal_model import CausalModel, Factor, Mechanism, Values
from cat_jax.tasks.game import CausalGame, Split, generate
from cat_jax.tasks.measures import number_measures
from cat_jax.tasks.wording import (
    ANSWER,
    Effect,
    Granularity,
    annotated_record,
    read_values,
    replace_values,
)


class Causal(NamedTuple):
    """Uniform in [low, high] plus normal noise; ``weight`` is its part in the AQI."""

    low: float
    high: float
    noise: float
    weight: float


class Spurious(NamedTuple):
    """slope x source + normal noise in distribution; uniform in ``ood`` out of it."""

    source: str
    slope: float
    noise: float
    ood: tuple[float, float]


CAUSAL = {
    "Industrial Emissions": Causal(30, 70, 2.0, 0.6),
    "Vehicle Emissions": Causal(20, 60, 2.0, 0.5),
    "Coal Dependency": Causal(10, 50, 1.5, 0.4),
    "Agricultural Burning": Causal(10, 30, 1.0, 0.3),
    "Urban Green Coverage": Causal(40, 80, 3.0, -0.4),
    "Meteorological Dispersion": Causal(50, 90, 3.0, -0.6),
}
SPURIOUS = {
    "Ice Cream Sales Index": Spurious("Meteorological Dispersion", 0.4, 2.0, (5, 9)),
    "Allergy Complaints Level": Spurious("Agricultural Burning", 0.2, 3.0, (2, 6)),
    "Renewable Stock Index": Spurious("Industrial Emissions", 1.1, 1.5, (3, 7)),
    "Public Transport Subscriptions (k)": Spurious("Vehicle Emissions", 0.15, 2.0, (3, 9)),
    "Water Awareness Score": Spurious("Urban Green Coverage", -0.1, 1.0, (-8, -4)),
}
LISTED = ("City Anniversary", "Average Internet Speed", "Number of Libraries")
"""Factors without influence, in the order of the text."""
# Printed as format specification and unit where that is not one decimal without a unit.
PRINTED = {
    "Coal Dependency": (".1f", "%"),
    "Urban Green Coverage": (".1f", "%"),
    "Renewable Stock Index": (".0f", ""),
    "City Anniversary": (".0f", "th"),
    "Average Internet Speed": (".1f", "Mbps"),
    "Number of Libraries": (".0f", ""),
}
OTHER_NAMES = {
    "Industrial Emissions": "Factory Exhaust",
    "Vehicle Emissions": "Traffic Exhaust",
    "Coal Dependency": "Share of Coal Power",
    "Agricultural Burning": "Crop Residue Fires",
    "Urban Green Coverage": "Area of City Parks",
    "Meteorological Dispersion": "Air Mixing by Weather",
    "Ice Cream Sales Index": "Frozen Dessert Demand",
    "Allergy Complaints Level": "Reports of Hay Fever",
    "Renewable Stock Index": "Clean Energy Shares",
    "Public Transport Subscriptions (k)": "Bus and Rail Passes (k)",
    "Water Awareness Score": "Knowledge of Water Saving",
    "City Anniversary": "Founding Jubilee",
    "Average Internet Speed": "Mean Broadband Rate",
    "Number of Libraries": "Count of Reading Rooms",
}
"""Each factor in other words, for the intervention "rename"."""
QUESTION = (
    "Given these diverse conditions, what is the projected Air Quality Index (AQI) "
    "on a 0-100 scale? "
)


def aqi_score(factors: Values) -> float:
    """Sum up the linear score behind the AQI; factors other than the causal ones are ignored."""
    return 40 + sum(causal.weight * factors[name] for name, causal in CAUSAL.items())


def aqi(factors: Values) -> int:
    """Round the score and clip it to 0-100."""
    return min(max(round(aqi_score(factors)), 0), 100)


def stg_h_records(*, split: Split = "train", seed: int, **style: Any) -> Iterator[Record]:
    """Generate records without end; take n with ``itertools.islice``.

    Args:
        split: "train" and "iid" share a distribution but never a random stream; in "ood" the
            spurious factors are independent of the causal ones, and in another range.
        seed: Seed of the draws.
        **style: Annotation, as in ``stg_h_record``.

    Raises:
        InputError: A negative seed, or an unknown split, granularity or effect.
    """
    return generate("stg_h", split, seed, draw_factors, stg_h_record, style)


def _cause(name: str) -> Mechanism:
    causal = CAUSAL[name]
    return lambda rng, values: rng.uniform(causal.low, causal.high) + rng.normal(0, causal.noise)


def _follow(name: str) -> Mechanism:
    twin = SPURIOUS[name]
    return lambda rng, values: twin.slope * values[twin.source] + rng.normal(0, twin.noise)


def _redraw(name: str) -> Mechanism:
    return lambda rng, values: rng.uniform(*SPURIOUS[name].ood)


IRRELEVANT: dict[str, Mechanism] = {
    "City Anniversary": lambda rng, values: int(rng.integers(1, 101)),
    "Number of Libraries": lambda rng, values: int(rng.integers(10, 51)),
    "Average Internet Speed": lambda rng, values: rng.uniform(80, 120) + rng.normal(0, 3),
}
"""In the order in which they are drawn; the text has another."""
MODEL = CausalModel(
    factors=(
        *(Factor(name, "cause", _cause(name)) for name in CAUSAL),
        *(Factor(name, "twin", _follow(name), (SPURIOUS[name].source,)) for name in SPURIOUS),
        *(Factor(name, "irrelevant", draw) for name, draw in IRRELEVANT.items()),
    ),
    causes=tuple(CAUSAL),
    judge=lambda values: str(aqi(values)),
    answer="air quality index",
)
OOD = MODEL.do({name: _redraw(name) for name in SPURIOUS})


def draw_factors(rng: np.random.Generator, *, ood: bool) -> dict[str, float]:
    """Draw one city's fourteen factors, unrounded."""
    return (OOD if ood else MODEL).draw(rng)


def stg_h_record(
    factors: Values,
    *,
    granularity: Granularity = "value",
    effect: Effect = "answer",
    trace: bool = False,
) -> Record:
    """Write the record of these factors; its answer is the AQI of the unrounded values.

    Args:
        factors: Values by name, unrounded.
        granularity: Causes are "Coal Dependency: 41.9%" (``span``) or "41.9%" (``value``, as
            published).
        effect: Annotated effect: "8" (``target``) or "Answer: 8" (``answer``, as published).
        trace: Annotate the text after each cause too, as depending on that cause alone.
    """
    groups = (CAUSAL, SPURIOUS, LISTED)
    listed = [
        "; ".join(f"{name}: {printed(name, factors[name])}" for name in group) + ". "
        for group in groups
    ]
    text = "".join(listed) + QUESTION + ANSWER
    target = str(aqi(factors))
    return annotated_record(
        text, target, tuple(CAUSAL), granularity=granularity, effect=effect, trace=trace
    )


def printed(name: str, value: float) -> str:
    """Format a factor's value as its text shows it."""
    spec, unit = PRINTED.get(name, (".1f", ""))
    return f"{value:{spec}}{unit}"


def intervene(record: Record, rng: np.random.Generator) -> Record:
    """Redraw only the spurious values, as in OOD: all that causes the answer stays as it is."""
    new = {name: printed(name, _redraw(name)(rng, {})) for name in SPURIOUS}
    return replace_values(record, new)


def shortcut(record: Record) -> str:
    """Compute the AQI from the spurious values alone, as if each still copied its source."""
    values = read_values(record.input, tuple(SPURIOUS))
    guessed = {name: (causal.low + causal.high) / 2 for name, causal in CAUSAL.items()}
    guessed |= {twin.source: values[name] / twin.slope for name, twin in SPURIOUS.items()}
    return str(aqi(guessed))


@dataclass(frozen=True, kw_only=True)
class STGH(CausalGame):
    """STG_H, the harder Spurious Token Game: an air quality index from six causal factors."""

    name: ClassVar[str] = "stg_h"
    prior_name: ClassVar[str | None] = "regression"
    published_style: ClassVar[Mapping[str, Any]] = {
        "granularity": "value",
        "effect": "answer",
        "trace": False,
    }

    @property
    def model(self) -> CausalModel:
        """Return the causal model of the training records."""
        return MODEL

    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split."""
        return stg_h_records(split=cast("Split", split), seed=seed, **self.style)

    def redraw_spurious(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the spurious values alone, as out of distribution."""
        return intervene(record, rng)

    def printed(self, name: str, value: float) -> str:
        """Format a factor's value as the text shows it."""
        return printed(name, value)

    @property
    def other_names(self) -> Mapping[str, str]:
        """Return the factors' names in other words."""
        return OTHER_NAMES

    def measures(self, answer: str, target: str) -> Mapping[str, float]:
        """Return the absolute error, and whether it is at most 5 of 100."""
        return number_measures(answer, target, tolerance=5)

    def shortcut(self, record: Record) -> str:
        """Judge by the spurious factors alone."""
        return shortcut(record)
