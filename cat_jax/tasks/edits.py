"""Edits of a record's text that move its annotation along."""

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from cat_jax.data.matching import find_span, words_at
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

Edit = tuple[int, int, str]
"""First and last character (exclusive) to replace, and the text in their place."""
Move = Callable[[range, Sequence[range]], range]
"""Where a place of the old text is in the new one; its causes where it is an effect's."""

_WORD = re.compile(r"\s*(\w+|\S)")


def replace_text(record: Record, edits: Sequence[Edit]) -> Record:
    """Return the record with parts of its text replaced, those of its answer too.

    An annotation that holds what is replaced has the new words.

    Args:
        record: Record.
        edits: Parts of ``record.text``, in text order, none of which overlap, each within the
            prompt or within the answer.

    Raises:
        InputError: An annotation covers a part of what is replaced.
    """
    grown = [(start, stop, len(new) - (stop - start)) for start, stop, new in edits]

    def move(place: range, causes: Sequence[range]) -> range:
        for start, stop, _ in edits:
            within = place.start <= start and stop <= place.stop
            if start < place.stop and place.start < stop and not within:
                words = record.text[place.start : place.stop]
                raise InputError(f"the annotation {words!r} covers a part of what is replaced")
        before = sum(more for _, stop, more in grown if stop <= place.start)
        until = sum(more for start, _, more in grown if start < place.stop)
        return range(place.start + before, place.stop + until)

    pieces, end = [], 0
    for start, stop, new in edits:
        pieces += [record.text[end:start], new]
        end = stop
    text = "".join([*pieces, record.text[end:]])
    border = len(record.input)
    border += sum(more for start, _, more in grown if start < border)
    return _follow(record, text[:border], text[border:], move)


def replace_answer(record: Record, target: str) -> Record:
    """Return the record with another answer.

    Raises:
        InputError: An annotation covers a part of the old answer.
    """
    return replace_text(record, [(len(record.input), len(record.text), target)])


def reorder_text(
    record: Record, parts: Sequence[range], order: Sequence[int], words: Sequence[str] | None = None
) -> Record:
    """Return the record with parts of its prompt in another order; what is between them stays.

    An annotation within a part moves with it. One of the word after a part as depending on
    nothing but that part, as games trace their causes, is then of the word after its new place.

    Args:
        record: Record.
        parts: Parts of the prompt, in text order, none of which overlap.
        order: For each of these places, which part comes there.
        words: The parts' new words at each of the places, as long as the old ones; the old ones
            by default.

    Raises:
        InputError: An annotation covers more than one part.
    """
    old, places = record.text, dict(zip(order, range(len(order)), strict=True))
    if words is None:
        words = [old[parts[n].start : parts[n].stop] for n in order]
    grown = [len(new) - len(part) for new, part in zip(words, parts, strict=True)]
    shifts = [0, *itertools.accumulate(grown)]
    starts = [part.start + shift for part, shift in zip(parts, shifts, strict=False)]
    pieces, end = [], 0
    for part, new in zip(parts, words, strict=True):
        pieces += [old[end : part.start], new]
        end = part.stop
    prompt = "".join([*pieces, record.input[end:]])
    text = prompt + record.target

    def move(place: range, causes: Sequence[range]) -> range:
        for n, part in enumerate(parts):
            start = starts[places[n]]
            if _within(place, part):
                shift = start - part.start
                return range(place.start + shift, place.stop + shift)
            is_traced = bool(causes) and all(_within(cause, part) for cause in causes)
            if is_traced and place == word_after(old, part.stop):
                return word_after(text, start + len(part)) or place
            if place.start < part.stop and part.start < place.stop:
                shown = old[place.start : place.stop]
                raise InputError(f"the annotation {shown!r} covers more than a part that is moved")
        shift = shifts[sum(part.stop <= place.start for part in parts)]
        return range(place.start + shift, place.stop + shift)

    return _follow(record, prompt, record.target, move)


def draw_order(count: int, rng: np.random.Generator) -> list[int]:
    """Draw an order of ``count`` things other than the one they are in, if there is one."""
    order = list(range(count))
    while count > 1 and order == sorted(order):
        order = rng.permutation(count).tolist()
    return order


def word_after(text: str, stop: int) -> range | None:
    """Return where the next word or sign after a place stands, if there is one."""
    following = _WORD.match(text, stop)
    return None if following is None else range(*following.span(1))


def _within(place: range, part: range) -> bool:
    return part.start <= place.start and place.stop <= part.stop


def _follow(record: Record, prompt: str, target: str, move: Move) -> Record:
    """Return a record of a new text with the annotations of the old one."""
    old, new = record.text, prompt + target
    notes = []
    for note in record.important:
        before = [_places(old, cause, is_effect=False) for cause in note.causes]
        every = list(itertools.chain.from_iterable(before))
        causes = [
            _moved(new, cause, [move(place, ()) for place in found], is_effect=False)
            for cause, found in zip(note.causes, before, strict=True)
        ]
        found = [move(place, every) for place in _places(old, note.effect, is_effect=True)]
        effects = _moved(new, note.effect, found, is_effect=True)
        spans = tuple(itertools.chain.from_iterable(causes))
        notes += [Annotation(effect, spans) for effect in effects if spans]
    return Record(prompt, target, tuple(notes), where=record.where)


def _places(text: str, span: Span, *, is_effect: bool) -> list[range]:
    if span.start is None:
        return find_span(text, span, is_effect=is_effect)
    place = words_at(text, span.text, span.start)
    return [] if place is None else [place]


def _moved(text: str, span: Span, places: list[range], *, is_effect: bool) -> list[Span]:
    """Name places of the new text: by words alone where the old span was and words suffice.

    Words that stood nowhere must not come to stand somewhere: then there is no place to name.
    """
    places = sorted(places, key=lambda place: place.start)
    found = [Span(text[place.start : place.stop], place.start) for place in places]
    if span.start is None:
        for words in dict.fromkeys((span.text, *(x.text for x in found))):
            if find_span(text, Span(words), is_effect=is_effect) == places:
                return [Span(words)]
    return found
