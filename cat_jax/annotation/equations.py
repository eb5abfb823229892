"""Annotations of calculations that an answer writes down, without an assistant.

GSM8K (Cobbe et al., arXiv 2110.14168) writes each step as ``<<3*4=12>>12`` and the answer after
``####``: a result depends on the numbers that its step uses, the answer on the result it repeats.
"""

import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

CALCULATION = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)|(?<![\w.])\.\d+(?!\w)")
ANSWER = re.compile(r"####\s*-?")

OPERATIONS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
PLACEHOLDER = re.compile(r"\bN_(\d+)\b")
CHAIN = re.compile(r"[\d.,\s+*/()-]+")

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


def annotate_equation(record: Record, equation: str) -> Record:
    """Return a record whose answer depends on the numbers that an equation uses.

    Equations are those of MAWPS and SVAMP ("( 8.0 - 2.0 )", "X=8.0-2.0"), also with numbers by
    their place in the prompt, from N_00 ("N_00 - N_01"). A number that stands several times in the
    prompt is meant each time, but one by place there alone; one that stands nowhere is left out,
    and the record has no annotation if none is left.

    Args:
        record: The record; its annotations are replaced.
        equation: Numbers, + - * / and brackets, perhaps with a name and "=" on one side.

    Raises:
        InputError: It is of another form, or the prompt has no number at a place.
    """
    sides = [side.strip() for side in equation.split("=")]
    formulas = [side for side in sides if CHAIN.fullmatch(PLACEHOLDER.sub("0", side))]
    if len(formulas) != 1 or len(sides) > 2:
        raise InputError(
            f"{equation!r} is no equation such as '(8.0 - 2.0)' or 'X = 8 - 2'; correct it"
        )
    wanted = set(_values(formulas[0]))
    places = {int(place) for place in PLACEHOLDER.findall(formulas[0])}
    numbers = [*NUMBER.finditer(record.input)]
    if places and max(places) >= len(numbers):
        raise InputError(
            f"{equation!r} names N_{max(places):02d}, but the prompt has {len(numbers)} numbers, "
            "counted from N_00; correct it"
        )
    found = [x for n, x in enumerate(numbers) if n in places or _value(x[0]) in wanted]
    causes = tuple(Span(x[0], x.start()) for x in found)
    effect = Span(record.target, len(record.input))
    return replace(record, important=(Annotation(effect, causes),) if causes else ())


def equations_of(record: Record) -> list[str]:
    """Return the equations with two numbers of the prompt and one operation that give the target.

    A rule where a data set's own equations are not at hand; more than one is ambiguous.

    Args:
        record: A record whose target is a number.
    """
    asked = NUMBER.search(record.target)
    if asked is None:
        return []
    answer = _value(asked[0])
    numbers = list(dict.fromkeys(_value(x[0]) for x in NUMBER.finditer(record.input)))
    return [
        f"{_written(a)} {sign} {_written(b)}"
        for n, a in enumerate(numbers)
        for m, b in enumerate(numbers)
        for sign, operate in OPERATIONS.items()
        if n != m and (n < m or sign in "-/") and (b or sign != "/") and operate(a, b) == answer
    ]


def _written(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else str(float(number))


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
