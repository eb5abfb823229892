"""Words of a prompt that may be causes, and others in their place."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cat_jax.annotation.equations import NUMBER
from cat_jax.data.records import Record, Span
from cat_jax.errors import InputError

Draw = Callable[[str, np.random.Generator], str]
"""Returns other words in place of some."""

WORD = re.compile(r"\w+(?:['’.-]\w+)*")


@dataclass(frozen=True)
class Proposal:
    """Words of a prompt that an answer may depend on.

    Attributes:
        span: The words, at their character offset.
        effect: How much the answer depends on them; what it measures is said by ``propose_causes``.
        low: Lower end of the 95 % interval of the effect; NaN where nothing is drawn.
        high: Upper end.
    """

    span: Span
    effect: float
    low: float = float("nan")
    high: float = float("nan")


def number_spans(record: Record) -> list[Span]:
    """Return the numbers of a prompt."""
    return [Span(x[0], x.start()) for x in NUMBER.finditer(record.input)]


def word_spans(record: Record) -> list[Span]:
    """Return the words and numbers of a prompt."""
    return [Span(x[0], x.start()) for x in WORD.finditer(record.input)]


def other_number(number: str, rng: np.random.Generator) -> str:
    """Return another number, drawn evenly from 0 to twice it or, if that is less, to 10.

    It has as many digits behind the point.

    Raises:
        InputError: It is no number.
    """
    plain = number.replace(",", "")
    if NUMBER.fullmatch(number) is None:
        raise InputError(f"{number!r} is no number; give a function that draws in its place")
    digits = len(plain.partition(".")[2])
    largest = max(10, round(2 * float(plain))) * 10**digits
    given = round(float(plain) * 10**digits)
    drawn = int(rng.integers(0, largest))
    drawn += drawn >= given  # all but the number itself
    return f"{drawn / 10**digits:.{digits}f}"
