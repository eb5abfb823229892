"""Annotations of texts that follow a pattern, without an assistant."""

import re
from collections.abc import Sequence
from dataclasses import replace
from re import Match, Pattern

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

CAUSE, EFFECT = "cause", "effect"
FIELD = re.compile(r"\{(\w*)\}")


def annotate_patterns(record: Record, patterns: Sequence[str | Pattern[str]]) -> Record:
    r"""Return a record annotated where patterns match its text.

    A pattern is a regular expression whose groups ``cause``, ``cause_2`` ... are causes, and whose
    group ``effect`` depends on them; without that group the answer does. All matches count; what
    several say of one effect is joined. The record's own annotations are replaced.

    >>> record = Record("Smoking: 8, Shoes: 41. Risk: ", "High")
    >>> annotate_patterns(record, [r"Smoking: (?P<cause>\d+)"]).important[0].causes
    (Span(text='8', start=9, message=None),)

    Args:
        record: The record.
        patterns: Regular expressions, such as ``template_pattern`` makes.

    Raises:
        InputError: A pattern is no regular expression, or has no group of a cause.
    """
    answer = Span(record.target, len(record.input))
    found: dict[Span, list[Span]] = {}
    for pattern in map(_compiled, patterns):
        for match in pattern.finditer(record.text):
            has_effect = EFFECT in pattern.groupindex and match[EFFECT]
            effect = _span(match, EFFECT) if has_effect else answer
            names = sorted((x for x in pattern.groupindex if _is_cause(x)), key=match.start)
            causes = [_span(match, name) for name in names if match[name]]
            before = [x for x in causes if (x.start or 0) + len(x.text) <= (effect.start or 0)]
            found.setdefault(effect, []).extend(before)
    notes = [
        Annotation(effect, tuple(dict.fromkeys(causes)))
        for effect, causes in found.items()
        if causes
    ]
    return replace(record, important=tuple(notes))


def template_pattern(template: str) -> Pattern[str]:
    """Return the pattern of a template such as "{name} has {cause} apples and {cause} pears".

    Fields stand for the shortest text that fits and does not cross a line; causes may come several
    times. Spaces match any white space.

    Args:
        template: Text with fields in braces: ``cause``, ``effect``, or any other name.

    Raises:
        InputError: It has no field ``{cause}``.
    """
    if "{cause}" not in template:
        raise InputError(f"the template {template!r} has no field {{cause}}; add one")
    parts, place, count = [], 0, 0
    for one in FIELD.finditer(template):
        parts.append(_literal(template[place : one.start()]))
        name, place = one[1], one.end()
        if name == CAUSE:
            count += 1
            name = CAUSE if count == 1 else f"{CAUSE}_{count}"
        is_last = place == len(template)
        any_text = r"\S+" if is_last else r"[^\n]+?"
        parts.append(f"(?P<{name}>{any_text})" if _is_cause(name) or name == EFFECT else any_text)
    return re.compile("".join([*parts, _literal(template[place:])]))


def _literal(text: str) -> str:
    return r"\s+".join(map(re.escape, re.split(r"\s+", text)))


def _compiled(pattern: str | Pattern[str]) -> Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is no regular expression ({error}); correct it") from error
    if not any(map(_is_cause, compiled.groupindex)):
        raise InputError(f"{compiled.pattern!r} has no group named 'cause'; write (?P<cause>...)")
    return compiled


def _is_cause(name: str) -> bool:
    return name == CAUSE or name.startswith(f"{CAUSE}_")


def _span(match: Match[str], name: str) -> Span:
    return Span(match[name], match.start(name))
