"""The Spurious Token Game: generated, seeded, endless, in the published text format.

Source: CAT (Han et al., EMNLP 2025). Three causal factors decide the label. Three twins copy
them in training and are independent of them out of distribution (OOD).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.causal_model import CausalModel, Factor, Mechanism, Values
from cat_jax.tasks.game import CausalGame, Split, generate
from cat_jax.tasks.wording import (
    ANSWER,
    Effect,
    Granularity,
    annotated_record,
    read_values,
    replace_values,
)

SIZES: dict[str, dict[Split, int]] = {
    "stg_l": {"train": 1600, "iid": 400, "ood": 400},
    "stg_m": {"train": 800, "iid": 400, "ood": 400},
    "stg_s": {"train": 400, "iid": 400, "ood": 400},
    "stg_h": {"train": 3000, "iid": 1000, "ood": 1000},
}

CAUSAL = ("Smoking", "Weight", "Exercise")
SPURIOUS = ("Yellow fingers", "Clothing size", "Hormones")
IRRELEVANT = ("Certain gene", "Room size")
PREFIX = "Here is the statistical data for a person. Please predict the probability of cancer. "


def stg_label(smoking: float, weight: float, exercise: float) -> str:
    """Judge: High Risk when 1.2 smoking + 0.7 weight - exercise exceeds 7.2.

    Seven published rows say "Middle Risk" instead, a bug of their generator that fires where
    this score is exactly 2.7 in floating point; here those are Low Risk.
    """
    return risk(12 * smoking + 7 * weight - 10 * exercise, scale=10)


def risk(score: float, scale: int) -> str:
    """Compare a score, given in units of 1 / scale so that it is exact, with 7.2.

    7.2 itself is Low Risk, as published.
    """
    return "High Risk" if 10 * score > 72 * scale else "Low Risk"


TWINS: dict[str, tuple[str, Callable[[float], float]]] = {
    "Yellow fingers": ("Smoking", lambda smoking: 3 * smoking // 2),
    "Clothing size": ("Weight", lambda weight: weight),
    "Hormones": ("Exercise", lambda exercise: exercise // 2),
}
"""What each spurious factor copies in distribution, and how."""

OTHER_NAMES = {
    "Smoking": "Cigarettes a day",
    "Weight": "Body mass",
    "Exercise": "Physical activity",
    "Certain gene": "Genetic marker",
    "Room size": "Area of the room",
    "Yellow fingers": "Stained fingertips",
    "Clothing size": "Dress size",
    "Hormones": "Endocrine level",
}
"""Each factor in other words, for the intervention "rename"."""


def _uniform(rng: np.random.Generator, values: Values) -> float:
    return int(rng.integers(1, 11))


def _copy(twin: str) -> Mechanism:
    source, copy = TWINS[twin]

    def draw(rng: np.random.Generator, values: Values) -> float:
        _uniform(rng, values)  # as out of distribution, so that one stream serves both
        return copy(values[source])

    return draw


MODEL = CausalModel(
    factors=(
        *(Factor(name, "cause", _uniform) for name in CAUSAL),
        *(Factor(name, "irrelevant", _uniform) for name in IRRELEVANT),
        *(Factor(name, "twin", _copy(name), (TWINS[name][0],)) for name in SPURIOUS),
    ),
    causes=CAUSAL,
    judge=lambda values: stg_label(*(values[name] for name in CAUSAL)),
    answer="risk",
)
OOD = MODEL.do(dict.fromkeys(SPURIOUS, _uniform))


def stg_records(*, split: Split = "train", seed: int, **style: Any) -> Iterator[Record]:
    """Generate records without end; take n with ``itertools.islice``.

    Args:
        split: "train" and "iid" share a distribution but never a random stream; in "ood" the
            twins are independent of the causal factors.
        seed: Seed of the draws.
        **style: Annotation and prefix, as in ``stg_record``.

    Raises:
        InputError: A negative seed, or an unknown split, granularity or effect.
    """
    return generate("stg", split, seed, draw_factors, stg_record, style)


def draw_factors(rng: np.random.Generator, *, ood: bool) -> dict[str, float]:
    """Draw one person's eight factors, in the shuffled order in which the text names them."""
    values = (OOD if ood else MODEL).draw(rng)
    names = list(values)
    return {names[i]: values[names[i]] for i in rng.permutation(8).tolist()}


def stg_record(
    factors: Values,
    *,
    granularity: Granularity = "span",
    effect: Effect = "target",
    trace: bool = False,
    prefix: bool = True,
) -> Record:
    """Write the record of these factors, in their order.

    Args:
        factors: Values by name, in the order of the text.
        granularity: Causes are "Smoking: 8" (``span``, as published) or "8" (``value``).
        effect: Annotated effect: "High Risk" (``target``, as published) or "Answer: High Risk"
            (``answer``).
        trace: Annotate the text after each cause too, as depending on that cause alone.
        prefix: Start with the published two sentences of introduction.
    """
    listed = ", ".join(f"{name}: {value}" for name, value in factors.items())
    text = f"{PREFIX if prefix else ''}{listed} {ANSWER}"
    label = stg_label(*(factors[name] for name in CAUSAL))
    return annotated_record(
        text, label, CAUSAL, granularity=granularity, effect=effect, trace=trace
    )


def intervene(record: Record, rng: np.random.Generator) -> Record:
    """Redraw only the twins, independently: all that causes the label stays as it is."""
    drawn = rng.integers(1, 11, size=3).tolist()
    return replace_values(record, {n: str(v) for n, v in zip(SPURIOUS, drawn, strict=True)})


def shortcut(record: Record) -> str:
    """Judge by the twins alone, as if each still copied its causal factor."""
    values = read_values(record.input, SPURIOUS)
    yellow, clothing, hormones = (values[name] for name in SPURIOUS)
    # Smoking is known exactly from its twin; Exercise is 2 or 2 + 1 times its own, on average 0.5.
    return risk(24 * -(-2 * yellow // 3) + 14 * clothing - 10 * (4 * hormones + 1), scale=20)


@dataclass(frozen=True, kw_only=True)
class STG(CausalGame):
    """The Spurious Token Game: risk of cancer from three causal factors."""

    name: ClassVar[str] = "stg"
    prior_name: ClassVar[str | None] = "risk"
    published_style: ClassVar[Mapping[str, Any]] = {
        "granularity": "span",
        "effect": "target",
        "trace": False,
    }

    @property
    def model(self) -> CausalModel:
        """Return the causal model of the training records."""
        return MODEL

    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split."""
        return stg_records(split=cast("Split", split), seed=seed, **self.style)

    def redraw_spurious(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the twins alone, independently."""
        return intervene(record, rng)

    @property
    def other_names(self) -> Mapping[str, str]:
        """Return the factors' names in other words."""
        return OTHER_NAMES

    def shortcut(self, record: Record) -> str:
        """Judge by the spurious factors alone."""
        return shortcut(record)
