"""What both Spurious Token Games share: "NAME: VALUE" texts, their annotation and their edits."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

Split = Literal["train", "iid", "ood"]
Granularity = Literal["span", "value"]
Effect = Literal["target", "answer"]

ANSWER = "Answer: "


def stream(game: str, split: Split, seed: int) -> np.random.Generator:
    """Open a random stream of its own for every game, split and seed."""
    check_choice("split", split, get_args(Split))
    if seed < 0:
        raise InputError(f"seed must be 0 or greater, not {seed}")
    key = tuple(f"{game}/{split}".encode())
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def check_annotation(granularity: str, effect: str) -> None:
    """Raise InputError for an unknown granularity or effect."""
    check_choice("granularity", granularity, get_args(Granularity))
    check_choice("effect", effect, get_args(Effect))


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raise InputError unless the option's value is one of the choices."""
    if value not in choices:
        raise InputError(f"{option} must be one of {', '.join(choices)}, not {value!r}")


def annotated_record(
    text: str,
    target: str,
    causal: tuple[str, ...],
    *,
    granularity: Granularity,
    effect: Effect,
    trace: bool,
) -> Record:
    """Annotate the answer with the causal factors of the text.

    Whole factors and the answer stand once in the text, and are written as published, by their
    words alone; a value may stand again elsewhere and carries its offset.
    """
    matches = find_factors(text, causal).values()
    if granularity == "span":
        causes = tuple(Span(match[0]) for match in matches)
    else:
        causes = tuple(Span(match["value"], match.start("value")) for match in matches)
    answer = Span(target if effect == "target" else ANSWER + target)
    traced = tuple(_traced(text, match) for match in matches) if trace else ()
    return Record(text, target, (Annotation(answer, causes), *traced))


def _traced(text: str, match: re.Match[str]) -> Annotation:
    """The words after a factor depend on the factor alone.

    They are predicted from the factor's value, so this guides the value's own row: otherwise a
    cause could carry to the answer what it read from spurious factors.
    """
    following = re.compile(r"\s*(\w+|\S)").match(text, match.end())
    if following is None:
        raise InputError(f"nothing follows {match[0]!r} in {text!r}")
    return Annotation(Span(following[1], following.start(1)), (Span(match[0]),))


def find_factors(text: str, names: tuple[str, ...]) -> dict[str, re.Match[str]]:
    """Where each factor stands, in text order.

    Of "Coal Dependency: 13.4%", group 0 is all, "value" is "13.4%" and "number" is "13.4".

    Raises:
        InputError: a factor is missing.
    """
    found = {match["name"]: match for match in _pattern(names).finditer(text)}
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"the text must hold '{missing[0]}: NUMBER' but does not: {text!r}")
    return found


@functools.cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    number = r"(?P<number>-?\d+(\.\d+)?)"
    return re.compile(
        rf"(?P<name>{'|'.join(map(re.escape, names))}): (?P<value>{number}(%|th|Mbps)?)"
    )


def replace_values(record: Record, values: Mapping[str, str]) -> Record:
    """Put new values (with their units) into the prompt and move annotation offsets along.

    Raises:
        InputError: a factor is missing, or an annotation covers a value to be replaced.
    """
    matches = find_factors(record.input, tuple(values)).values()
    edits = [(*match.span("value"), values[match["name"]]) for match in matches]
    pieces, end = [], 0
    for start, stop, new in edits:
        pieces += [record.input[end:start], new]
        end = stop
    important = tuple(
        Annotation(_moved(note.effect, edits), tuple(_moved(cause, edits) for cause in note.causes))
        for note in record.important
    )
    return Record("".join([*pieces, record.input[end:]]), record.target, important)


def _moved(span: Span, edits: list[tuple[int, int, str]]) -> Span:
    """Find the same words after the edits (start, stop, new text)."""
    if span.start is None:
        return span
    end = span.start + len(span.text)
    if any(start < end and span.start < stop for start, stop, _ in edits):
        raise InputError(f"the annotation {span.text!r} covers a value to be replaced")
    shift = sum(len(new) - (stop - start) for start, stop, new in edits if stop <= span.start)
    return Span(span.text, span.start + shift)
