"""STG_H: the harder Spurious Token Game, where the answer is an air quality index (AQI).

Source: CAT (Han et al., EMNLP 2025); ranges, noise and weights are estimated from the
published rows, and the round numbers below reproduce every one of their answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.factors import (
    ANSWER,
    Effect,
    Granularity,
    Split,
    SpuriousTokenGame,
    annotated_record,
    find_factors,
    generate,
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
IRRELEVANT = ("City Anniversary", "Average Internet Speed", "Number of Libraries")
# Printed as format specification and unit where that is not one decimal without a unit.
PRINTED = {
    "Coal Dependency": (".1f", "%"),
    "Urban Green Coverage": (".1f", "%"),
    "Renewable Stock Index": (".0f", ""),
    "City Anniversary": (".0f", "th"),
    "Average Internet Speed": (".1f", "Mbps"),
    "Number of Libraries": (".0f", ""),
}
QUESTION = (
    "Given these diverse conditions, what is the projected Air Quality Index (AQI) "
    "on a 0-100 scale? "
)


def aqi_score(factors: Mapping[str, float]) -> float:
    """Sum up the linear score behind the AQI; factors other than the causal ones are ignored."""
    return 40 + sum(causal.weight * factors[name] for name, causal in CAUSAL.items())


def aqi(factors: Mapping[str, float]) -> int:
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


def draw_factors(rng: np.random.Generator, *, ood: bool) -> dict[str, float]:
    """Draw one city's fourteen factors, unrounded, in the order of the text."""
    factors = {
        name: rng.uniform(causal.low, causal.high) + rng.normal(0, causal.noise)
        for name, causal in CAUSAL.items()
    }
    factors |= draw_spurious(rng) if ood else spurious_copies(rng, factors)
    anniversary, libraries = int(rng.integers(1, 101)), int(rng.integers(10, 51))
    speed = rng.uniform(80, 120) + rng.normal(0, 3)
    return factors | dict(zip(IRRELEVANT, (anniversary, speed, libraries), strict=True))


def spurious_copies(rng: np.random.Generator, causal: Mapping[str, float]) -> dict[str, float]:
    """Draw the spurious factors as they noisily follow the causal ones in distribution."""
    return {
        name: twin.slope * causal[twin.source] + rng.normal(0, twin.noise)
        for name, twin in SPURIOUS.items()
    }


def draw_spurious(rng: np.random.Generator) -> dict[str, float]:
    """Draw the spurious factors, independent of everything, as in OOD."""
    return {name: rng.uniform(*twin.ood) for name, twin in SPURIOUS.items()}


def stg_h_record(
    factors: Mapping[str, float],
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
    groups = (CAUSAL, SPURIOUS, IRRELEVANT)
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


def parse_factors(text: str) -> dict[str, float]:
    """Read the fourteen factors back, as printed, from a record's text, in text order.

    Raises:
        InputError: a factor is missing.
    """
    found = find_factors(text, (*CAUSAL, *SPURIOUS, *IRRELEVANT))
    return {name: float(match["number"]) for name, match in found.items()}


def intervene(record: Record, rng: np.random.Generator) -> Record:
    """Redraw only the spurious values, as in OOD: all that causes the answer stays as it is."""
    new = {name: printed(name, value) for name, value in draw_spurious(rng).items()}
    return replace_values(record, new)


def oracle(record: Record) -> str:
    """Compute the AQI from the causal values as they are printed."""
    return str(aqi(parse_factors(record.input)))


def shortcut(record: Record) -> str:
    """Compute the AQI from the spurious values alone, as if each still copied its source."""
    values = parse_factors(record.input)
    guessed = {name: (causal.low + causal.high) / 2 for name, causal in CAUSAL.items()}
    guessed |= {twin.source: values[name] / twin.slope for name, twin in SPURIOUS.items()}
    return str(aqi(guessed))


@dataclass(frozen=True, kw_only=True)
class STGH(SpuriousTokenGame):
    """STG_H, the harder Spurious Token Game: an air quality index from six causal factors."""

    name: ClassVar[str] = "stg_h"
    published_style: ClassVar[Mapping[str, Any]] = {
        "granularity": "value",
        "effect": "answer",
        "trace": False,
    }
    spurious_names: ClassVar[tuple[str, ...]] = tuple(SPURIOUS)
    generator = staticmethod(stg_h_records)
    redraw_spurious = staticmethod(intervene)
    oracle = staticmethod(oracle)
    shortcut = staticmethod(shortcut)
