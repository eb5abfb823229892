"""Factors in words: "NAME: VALUE" and other texts, read back, annotated and edited."""

import functools
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks.edits import draw_order, reorder_text, replace_text, word_after

Granularity = Literal["span", "value"]
Effect = Literal["target", "answer"]

ANSWER = "Answer: "
LINK = ": "
"""Between name and value, if the text does not say it otherwise."""


def annotated_record(
    text: str,
    target: str,
    causal: tuple[str, ...],
    *,
    granularity: Granularity,
    effect: Effect,
    trace: bool,
    link: str = LINK,
) -> Record:
    """Annotate the answer with the causal factors of the text.

    Whole factors and the answer stand once in the text, and are written as published, by their
    words alone; a value may stand again elsewhere and carries its offset.
    """
    matches = find_factors(text, causal, link).values()
    if granularity == "span":
        causes = tuple(Span(match[0]) for match in matches)
    else:
        causes = tuple(Span(match["value"], match.start("value")) for match in matches)
    answer = Span(target if effect == "target" else ANSWER + target)
    traced = tuple(_traced(text, match) for match in matches) if trace else ()
    return Record(text, target, (Annotation(answer, causes), *traced))


def _traced(text: str, match: re.Match[str]) -> Annotation:
    """Annotate the words after a factor: they depend on the factor alone.

    They are predicted from the factor's value, so this guides the value as a query: otherwise a
    cause could carry to the answer what it read from spurious factors.
    """
    following = word_after(text, match.end())
    if following is None:
        raise InputError(f"nothing follows {match[0]!r} in {text!r}")
    word = text[following.start : following.stop]
    return Annotation(Span(word, following.start), (Span(match[0]),))


def find_factors(text: str, names: tuple[str, ...], link: str = LINK) -> dict[str, re.Match[str]]:
    """Where each factor stands, in text order.

    Of "Coal Dependency: 13.4%", group 0 is all, "value" is "13.4%" and "number" is "13.4".

    Raises:
        InputError: a factor is missing.
    """
    found = {match["name"]: match for match in _pattern(names, link).finditer(text)}
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"the text must hold '{missing[0]}{link}NUMBER' but does not: {text!r}")
    return found


def read_values(text: str, names: tuple[str, ...], link: str = LINK) -> dict[str, float]:
    """Read factors back from a text, in text order; whole numbers are int.

    Raises:
        InputError: a factor is missing.
    """
    numbers = {name: match["number"] for name, match in find_factors(text, names, link).items()}
    return {name: float(x) if "." in x else int(x) for name, x in numbers.items()}


@functools.cache
def _pattern(names: tuple[str, ...], link: str) -> re.Pattern[str]:
    number = r"(?P<number>-?\d+(\.\d+)?)"
    # Longer names first, and whole: "Size" is not "Room Size". This is asked behind the names,
    # because patterns that begin with letters are found several times as fast.
    longest = map(re.escape, sorted(names, key=len, reverse=True))
    listed = "|".join(rf"{name}(?<!\w{name})" for name in longest)
    return re.compile(rf"(?P<name>{listed}){re.escape(link)}(?P<value>{number}(%|th|Mbps)?)")


def replace_values(record: Record, values: Mapping[str, str], link: str = LINK) -> Record:
    """Put new values (with their units) into the prompt.

    Raises:
        InputError: a factor is missing, or an annotation covers a part of its value.
    """
    matches = find_factors(record.input, tuple(values), link).values()
    return replace_text(
        record, [(*match.span("value"), values[match["name"]]) for match in matches]
    )


def rename_factors(record: Record, names: Mapping[str, str], link: str = LINK) -> Record:
    """Give factors other names: from the old to the new.

    Raises:
        InputError: a factor is missing, or an annotation covers a part of its name.
    """
    matches = find_factors(record.input, tuple(names), link).values()
    return replace_text(record, [(*match.span("name"), names[match["name"]]) for match in matches])


def reorder_factors(
    record: Record, names: tuple[str, ...], rng: np.random.Generator, link: str = LINK
) -> Record:
    """List factors in another order, each with its value.

    Raises:
        InputError: a factor is missing, or an annotation covers more than one.
    """
    matches = find_factors(record.input, names, link).values()
    parts = [range(*match.span()) for match in matches]
    return reorder_text(record, parts, draw_order(len(parts), rng))
