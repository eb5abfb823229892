"""Words of a prompt that may be causes, and others in their place."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cat_jax.annotation.equations import NUMBER
from cat_jax.data.records import Record, Span
from cat_jax.errors import InputError

Draw = Callable[[Record, Span, np.random.Generator], str]
"""Returns other words in place of a span of a record's prompt."""

WORD = re.compile(r"\w+(?:['’.-]\w+)*")


@dataclass(frozen=True)
class Proposal:
    """Words of a prompt that an answer may depend on.

    Attributes:
        span: The words, at their character offset.
        effect: How much the answer depends on them; what it measures is said by ``propose_causes``.
        by: What measured it: "replacement", "removal", or a rival reading, "gradient", "attention".
        draws: How many changed prompts the effect is the mean over; 0 for the rival readings.
        low: Lower end of the 95 % interval of the effect; NaN of fewer than two draws.
        high: Upper end.
    """

    span: Span
    effect: float
    by: str
    draws: int = 0
    low: float = float("nan")
    high: float = float("nan")


def number_spans(record: Record) -> list[Span]:
    """Return the numbers of a prompt."""
    return [Span(x[0], x.start()) for x in NUMBER.finditer(record.input)]


def word_spans(record: Record) -> list[Span]:
    """Return the words and numbers of a prompt."""
    return [Span(x[0], x.start()) for x in WORD.finditer(record.input)]


def check_places(record: Record, spans: Sequence[Span]) -> None:
    """Check that spans stand in a prompt at their offsets.

    Raises:
        InputError: One has no offset, or other words stand there.
    """
    for span in spans:
        if span.start is None or record.input[span.start :][: len(span.text)] != span.text:
            place = "has no 'start'" if span.start is None else f"is not at character {span.start}"
            where = f"{record.where}: " if record.where else ""
            raise InputError(
                f"{where}the span {span.text!r} {place} of the prompt; give the offset where it "
                "stands"
            )


def other_number(record: Record, span: Span, rng: np.random.Generator) -> str:
    """Return another number, drawn evenly from 0 to twice it or, if that is less, to 10.

    It has as many digits behind the point.

    Raises:
        InputError: It is no number.
    """
    number = span.text
    plain = number.replace(",", "")
    if NUMBER.fullmatch(number) is None:
        raise InputError(f"{number!r} is no number; give a function that draws in its place")
    digits = len(plain.partition(".")[2])
    largest = max(10, round(2 * float(plain))) * 10**digits
    given = round(float(plain) * 10**digits)
    drawn = int(rng.integers(0, largest))
    drawn += drawn >= given  # all but the number itself
    return f"{drawn / 10**digits:.{digits}f}"


class OtherRecords:
    """Words that differ between prompts of one template, and those of other prompts in their place.

    The place of a word is its number among the words of its prompt, from the first. Words that are
    the same in all prompts are not ranked, as there is nothing to put in their place.

    Args:
        records: The records to draw from.
        spans: Returns the words of a record.
    """

    def __init__(
        self,
        records: Sequence[Record],
        spans: Callable[[Record], Sequence[Span]] = word_spans,
    ) -> None:
        self._spans = spans
        self._words: dict[int, dict[str, None]] = {}
        for record in records:
            for place, span in enumerate(spans(record)):
                self._words.setdefault(place, {})[span.text] = None

    def spans(self, record: Record) -> list[Span]:
        """Return the words of a prompt at whose place another prompt has other words."""
        return [span for place, span in enumerate(self._spans(record)) if self._others(place, span)]

    def draw(self, record: Record, span: Span, rng: np.random.Generator) -> str:
        """Return other words that stand at the place of a span, each as likely.

        Raises:
            InputError: No prompt has other words there.
        """
        places = (n for n, x in enumerate(self._spans(record)) if x == span)
        others = self._others(next(places, -1), span)
        if not others:
            raise InputError(f"no other record has other words in place of {span.text!r}")
        return others[int(rng.integers(len(others)))]

    def _others(self, place: int, span: Span) -> list[str]:
        return [words for words in self._words.get(place, {}) if words != span.text]
