"""The Spurious Token Game: generated, seeded, endless, in the published text format.

Source: CAT (Han et al., EMNLP 2025). Three causal factors decide the label. Three twins copy
them in training and are independent of them out of distribution (OOD).
"""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.factors import (
    ANSWER,
    Effect,
    Granularity,
    Split,
    annotated_record,
    check_annotation,
    find_factors,
    replace_values,
    stream,
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


def stg_label(smoking: int, weight: int, exercise: int) -> str:
    """Judge: High Risk when 1.2 smoking + 0.7 weight - exercise exceeds 7.2.

    Seven published rows say "Middle Risk" instead, a bug of their generator that fires where
    this score is exactly 2.7 in floating point; here those are Low Risk.
    """
    # In tenths: the comparison is exact, and 7.2 itself is Low Risk as published.
    return "High Risk" if 12 * smoking + 7 * weight - 10 * exercise > 72 else "Low Risk"


def stg_twins(smoking: int, weight: int, exercise: int) -> dict[str, int]:
    """Give the spurious factors as they copy the causal ones in distribution."""
    return dict(zip(SPURIOUS, (3 * smoking // 2, weight, exercise // 2), strict=True))


def stg_records(
    *,
    split: Split = "train",
    seed: int,
    granularity: Granularity = "span",
    effect: Effect = "target",
    trace: bool = False,
    prefix: bool = True,
) -> Iterator[Record]:
    """Generate records without end; take n with ``itertools.islice``.

    Args:
        split: "train" and "iid" share a distribution but never a random stream; in "ood" the
            twins are independent of the causal factors.
        seed: same seed, same text.
        granularity: causes are "Smoking: 8" (``span``, as published) or "8" (``value``).
        effect: "High Risk" (``target``, as published) or "Answer: High Risk" (``answer``).
        trace: the text after each cause is annotated as well, as depending on that cause alone.
        prefix: start with the published two sentences of introduction.

    Raises:
        InputError: a negative seed, or an unknown split, granularity or effect.
    """
    rng = stream("stg", split, seed)
    check_annotation(granularity, effect)
    return (
        stg_record(
            draw_factors(rng, ood=split == "ood"),
            granularity=granularity,
            effect=effect,
            trace=trace,
            prefix=prefix,
        )
        for _ in itertools.count()
    )


def draw_factors(rng: np.random.Generator, *, ood: bool) -> dict[str, int]:
    """Draw one person's eight factors, in the shuffled order in which the text names them."""
    drawn = rng.integers(1, 11, size=8).tolist()
    values = dict(zip(CAUSAL + IRRELEVANT + SPURIOUS, drawn, strict=True))
    if not ood:
        values |= stg_twins(*drawn[:3])
    names = list(values)
    return {names[i]: values[names[i]] for i in rng.permutation(8).tolist()}


def stg_record(
    factors: Mapping[str, int],
    *,
    granularity: Granularity = "span",
    effect: Effect = "target",
    trace: bool = False,
    prefix: bool = True,
) -> Record:
    """Write the record of these factors, in their order."""
    listed = ", ".join(f"{name}: {value}" for name, value in factors.items())
    text = f"{PREFIX if prefix else ''}{listed} {ANSWER}"
    label = stg_label(*(factors[name] for name in CAUSAL))
    return annotated_record(
        text, label, CAUSAL, granularity=granularity, effect=effect, trace=trace
    )


def parse_factors(text: str) -> dict[str, int]:
    """Read the eight factors back from a record's text, in text order.

    Raises:
        InputError: a factor is missing.
    """
    found = find_factors(text, CAUSAL + SPURIOUS + IRRELEVANT)
    return {name: int(match["number"]) for name, match in found.items()}


def intervene(record: Record, rng: np.random.Generator) -> Record:
    """Redraw only the twins, independently: all that causes the label stays as it is."""
    drawn = rng.integers(1, 11, size=3).tolist()
    return replace_values(record, {n: str(v) for n, v in zip(SPURIOUS, drawn, strict=True)})
