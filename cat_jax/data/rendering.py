"""What of a row is trained, and where its annotated words stand: in characters, not tokens."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cat_jax.data.chat_template import render
from cat_jax.data.conversations import Conversation, TrainingRecord
from cat_jax.data.records import Annotation, Span
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CharSpans:
    """An annotation as the characters of each place where its effect and each cause stand."""

    effect: list[range]
    causes: list[list[range]]


@dataclass(frozen=True)
class RenderedText:
    """A text to tokenise.

    Attributes:
        text: the characters.
        targets: which of them are to be predicted.
        notes: the annotations.
        complete: special tokens stand in the text already.
    """

    text: str
    targets: Sequence[range]
    notes: list[CharSpans]
    complete: bool


def passage(row: TrainingRecord, tokenizer: "PreTrainedTokenizerBase") -> RenderedText:
    """The text of a row as a model reads it.

    Raises:
        InputError: a conversation that the tokenizer's chat template cannot render exactly.
    """
    if isinstance(row, Conversation):
        return _conversation_passage(row, tokenizer)
    text = row.text
    notes = [
        CharSpans(
            _places(text, note.effect, only_answer=True),
            [_places(text, cause) for cause in note.causes],
        )
        for note in row.important
    ]
    return RenderedText(text, (range(len(row.input), len(text)),), notes, complete=False)


def _conversation_passage(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerBase"
) -> RenderedText:
    rendering = render(conversation, tokenizer)
    notes = [
        _message_places(conversation, rendering.starts, number, note)
        for number, message in enumerate(conversation.messages)
        for note in message.important
    ]
    return RenderedText(rendering.text, rendering.targets, notes, complete=True)


def _message_places(
    conversation: Conversation, starts: Sequence[int | None], number: int, note: Annotation
) -> CharSpans:
    """The places of an annotation of message ``number``."""

    def places(span: Span, messages: Sequence[int], only_answer: bool = False) -> list[range]:
        found = []
        for of in messages:
            content, start = conversation.messages[of].content, starts[of]
            if start is None:
                raise InputError(
                    f"{conversation.where}: the chat template changes the words of message {of}, "
                    "so no annotation can be placed in them"
                )
            inside = _places(content, span, only_answer)
            found += [range(start + place.start, start + place.stop) for place in inside]
        return found

    def cause_places(cause: Span) -> list[range]:
        if cause.message is not None:
            return places(cause, [cause.message])
        return places(cause, range(number + 1) if cause.start is None else [number])

    effect = places(note.effect, [number], only_answer=True)
    return CharSpans(effect, [cause_places(cause) for cause in note.causes])


def find_span(text: str, span: Span) -> list[int]:
    """At which characters the words of a span stand; its own ``start`` where it has one.

    Without ``start``: whole words only, and whole numbers ("5" is not in "15", "5.2", "1,500",
    ".5" or "-5", but in "16-5" and "5%"), without the spaces around the span; in the case as
    written, else, if that is nowhere, in any case. Words of scripts without spaces between words
    need a ``start``.
    """
    if span.start is not None:
        return [span.start]
    words = span.text.strip()
    if not words:
        return []
    exact = _pattern(words, False).finditer(text) if words in text else ()
    return [m.start() for m in exact] or [m.start() for m in _pattern(words, True).finditer(text)]


def _places(text: str, span: Span, only_answer: bool = False) -> list[range]:
    """Gives the characters of each place where the span stands, without the spaces around it."""
    starts = find_span(text, span)
    words = span.text if span.start is not None else span.text.strip()
    if only_answer and starts and starts[-1] + len(words) >= len(text.rstrip()):
        starts = starts[-1:]
    lead = len(words) - len(words.lstrip())
    size = len(words.strip())
    return [range(start + lead, start + lead + size) for start in starts] if size else []


@functools.lru_cache(maxsize=4096)
def _pattern(words: str, any_case: bool) -> re.Pattern[str]:
    left = right = ""
    if re.match(r"\w", words[0]):
        left = r"(?<!\w)"
    if words[0].isdigit():  # part of a number: .5  1,500  and -5, unless something stands before
        left = r"(?<![\w.])(?<!\d,)(?<!(?<![\w)])[-−])"
    if re.match(r"\w", words[-1]):
        right = r"(?!\w)"
    if words[-1].isdigit():
        right = r"(?!\w|[.,]\d)"
    # A lookahead takes no text, so places may overlap.
    return re.compile(f"{left}(?={re.escape(words)}{right})", re.IGNORECASE if any_case else 0)
