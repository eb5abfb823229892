"""The search for annotated words in a text: whole words and whole numbers, in every script.

Words occur where their NFD form does (canonical equivalence: Unicode Standard 3.7, D70). Only
where they do not occur at all, case is ignored (canonical caseless matching: 3.13, D145). Spaces
around the words are dropped; all other characters, spaces and quotes too, count as they stand.

An occurrence begins and ends at a border. There is no border

- inside a grapheme cluster (UAX #29), so a combining mark belongs to its letter;
- inside a word: a run of letters, digits and "_" of scripts with spaces between words. Letters of
  the scripts in ``UNSPACED`` have borders on both sides;
- inside a number: digits, with "." and "," (and their Arabic forms) between them, "." in front,
  and a minus sign unless a word or ")" ends before it. So "2.5" and "1,000" are one number,
  "16-5" is 16 and 5, and "(-5)" is -5.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from unicodedata import normalize

import regex

if TYPE_CHECKING:
    from cat_jax.data.records import Span

UNSPACED = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Nushu", "Tangut"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese", "Balinese"),
    *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet"),
)
"""Scripts without spaces between words."""

_UNSPACED = "".join(rf"\p{{Script_Extensions={script}}}" for script in UNSPACED)
_LETTER = rf"[[\p{{L}}\p{{N}}\p{{Pc}}]--[[{_UNSPACED}]--\p{{Nd}}]]"  # digits have no script
_EXTEND = r"[[\p{M}\p{Cf}]--\u200b]*"  # belong to the letter before (UAX #29, WB4)


def _minus(letter: str, extend: str) -> str:
    return rf"(?<!(?:{letter}|\)){extend})[-−](?=\.?\d)"


def _inside(letter: str, extend: str) -> str:
    """Return the pattern of places inside a word or number: they have no characters."""
    within_word = rf"(?<={letter}{extend})(?={extend}{letter})"
    within_number = r"(?<=\.)(?=\d)|(?<=\d[,٫٬])(?=\d)|(?<=\d)(?=[.,٫٬]\d)"
    return rf"{within_word}|{within_number}|(?<={_minus(letter, extend)})(?=\.?\d)"


_SIGNED = regex.compile(_minus(_LETTER, _EXTEND), regex.V1)
_INSIDE = regex.compile(_inside(_LETTER, _EXTEND), regex.V1)
_INSIDE_ASCII = re.compile(_inside(r"\w", ""), re.ASCII)
"""The same of texts in ASCII, several times as fast."""
_CLUSTER = regex.compile(r"\X")


def find_span(text: str, span: "Span", *, is_effect: bool = False) -> list[range]:
    """Return the characters of each occurrence of a span, without the spaces around it.

    Occurrences may overlap.

    Args:
        text: Text of a record, or content of a message.
        span: Words to search for; with ``start`` they occur there alone.
        is_effect: Whether the span is an effect. One that ends the text is the answer, and its
            other occurrences are left out.
    """
    if span.start is None:
        words = span.text.strip()
        found = [*_occurrences(text, words, False)] or [*_occurrences(text, words, True)]
    else:
        place = words_at(text, span.text, span.start)
        found = [] if place is None else [_stripped(text, place)]
    if is_effect and found and found[-1].stop >= len(text.rstrip()):
        return found[-1:]
    return found


def words_at(text: str, words: str, start: int) -> range | None:
    """Return the characters of the words that stand at ``start``; None if others stand there."""
    if text.startswith(words, start):
        return range(start, start + len(words))
    letters, offsets = _searched(text, False)
    if start not in offsets:
        return None
    first, words = offsets.index(start), _normalized(words, False)
    stop = offsets[first + len(words)] if letters.startswith(words, first) else None
    return None if stop is None else range(start, stop)


def borders(text: str) -> list[bool]:
    """Tell of each offset of a text, its end included, whether an occurrence may begin there."""
    _, offsets = _searched(text, False)
    starts = {x for x in offsets if x is not None and not _is_inside(text, x)}
    return [offset in starts for offset in range(len(text) + 1)]


def _stripped(text: str, place: range) -> range:
    words = text[place.start : place.stop]
    lead = len(words) - len(words.lstrip())
    return range(place.start + lead, place.start + lead + len(words.strip()))


def _occurrences(text: str, words: str, ignore_case: bool) -> Iterator[range]:
    if not words:
        return
    is_signed = _SIGNED.match(words) is not None
    letters, offsets = _searched(text, ignore_case)
    words = _normalized(words, ignore_case)
    first = letters.find(words)
    while first >= 0:
        start, stop = offsets[first], offsets[first + len(words)]
        first = letters.find(words, first + 1)
        if start is None or stop is None or _is_inside(text, start) or _is_inside(text, stop):
            continue
        if is_signed and not _SIGNED.match(text, start):  # "-5" is not in "16-5"
            continue
        yield range(start, stop)


def _normalized(text: str, ignore_case: bool) -> str:
    decomposed = normalize("NFD", text)
    return normalize("NFD", decomposed.casefold()) if ignore_case else decomposed


@lru_cache(maxsize=64)
def _searched(text: str, ignore_case: bool) -> tuple[str, Sequence[int | None]]:
    """Return the normal form of a text, and the offset in the text of each of its characters.

    Offsets inside a grapheme cluster are None.
    """
    if text.isascii():
        return _normalized(text, ignore_case), range(len(text) + 1)
    parts: list[str] = []
    offsets: list[int | None] = []
    for cluster in _CLUSTER.finditer(text):
        part = _normalized(cluster[0], ignore_case)
        parts.append(part)
        offsets += [cluster.start()] + [None] * (len(part) - 1)
    return "".join(parts), [*offsets, len(text)]


def _is_inside(text: str, offset: int) -> bool:
    """Tell whether an offset is inside a word or number."""
    pattern = _INSIDE_ASCII if text.isascii() else _INSIDE
    return pattern.match(text, offset) is not None
