"""Annotations of calculations that an answer writes down, without an assistant.

GSM8K (Cobbe et al., arXiv 2110.14168) writes each step as ``<<3*4=12>>12`` and the answer after
``####``: a result depends on the numbers that its step uses, the answer on the result it repeats.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from cat_jax.data.records import Annotation, Record, Span

CALCULATION = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)|(?<![\w.])\.\d+(?!\w)")
ANSWER = re.compile(r"####\s*-?")

Places = dict[Fraction, Span]
"""Where a number of some value stands."""


def annotate_calculations(record: Record) -> Record:
    """Return a record whose calculated numbers depend on the numbers that they were made of.

    The effect is the number that is written after a calculation, or within it if there is none. Of
    each operand's value the cause is the result of an earlier step, else the last such number of
    the problem, else of the answer so far; an operand that stands nowhere, such as the 100 of a
    percentage, is left out. The record's own annotations are replaced; one without calculations has
    none.

    Args:
        record: A record whose target has calculations in double angle brackets.
    """
    text, start = record.text, len(record.input)
    given = _numbers(text, 0, start)
    results: Places = {}
    annotations: list[Annotation] = []
    steps = [*CALCULATION.finditer(text, start)]
    for step in steps:
        known = _numbers(text, start, step.start(), steps) | given | results
        effect = _result(text, step)
        if effect is None:
            continue
        annotations += _depends(effect, _values(step[1]), known)
        results[_value(effect.text)] = effect
    answer = ANSWER.search(text, start)
    last = None if answer is None else NUMBER.match(text, answer.end())
    if last is not None:
        effect = Span(last[0], last.start())
        annotations += _depends(effect, [_value(last[0])], given | results)
    return replace(record, important=tuple(annotations))


def _result(text: str, step: re.Match[str]) -> Span | None:
    """Return the number that a calculation gives, as the text goes on with it if it does."""
    shown = NUMBER.match(text, step.end())
    inner = NUMBER.search(step[2])
    if inner is None:
        return None
    if shown is not None and _value(shown[0]) == _value(inner[0]):
        return Span(shown[0], shown.start())
    return Span(inner[0], step.start(2) + inner.start())


def _numbers(text: str, start: int, stop: int, steps: Iterable[re.Match[str]] = ()) -> Places:
    """Return the last place of each number in a part of a text, calculations left out."""
    inside = {place for step in steps for place in range(*step.span())}
    found = (x for x in NUMBER.finditer(text[:stop], start) if x.start() not in inside)
    return {_value(x[0]): Span(x[0], x.start()) for x in found}


def _depends(effect: Span, values: Iterable[Fraction], known: Places) -> Iterator[Annotation]:
    """Yield the annotation of an effect, if one of the values stands anywhere."""
    causes = tuple(known[value] for value in dict.fromkeys(values) if value in known)
    if causes:
        yield Annotation(effect, causes)


def _values(calculation: str) -> list[Fraction]:
    return [_value(number[0]) for number in NUMBER.finditer(calculation)]


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))
