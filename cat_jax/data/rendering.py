"""Records as text: the characters that a model reads, those it predicts, and annotated words."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cat_jax.data.chat_template import render_conversation
from cat_jax.data.conversations import Conversation, TrainingRecord
from cat_jax.data.records import Annotation, Span
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CharSpans:
    """Characters of an annotation.

    Attributes:
        effect: Characters of each occurrence of the effect.
        causes: The same of each cause.
    """

    effect: list[range]
    causes: list[list[range]]


@dataclass(frozen=True)
class RenderedText:
    """A record as text, ready for the tokenizer.

    Attributes:
        text: The text.
        targets: Characters to predict.
        annotations: Characters of each annotation.
        has_special_tokens: Whether the text spells out its special tokens, as chat templates do;
            otherwise the tokenizer adds them.
    """

    text: str
    targets: Sequence[range]
    annotations: list[CharSpans]
    has_special_tokens: bool


def render_record(record: TrainingRecord, tokenizer: "PreTrainedTokenizerBase") -> RenderedText:
    """Return the text of a record or conversation as a model reads it.

    Raises:
        InputError: The tokenizer's chat template cannot render a conversation exactly.
    """
    if isinstance(record, Conversation):
        return _rendered_conversation(record, tokenizer)
    text = record.text
    annotations = [
        CharSpans(
            _occurrences(text, annotation.effect, is_effect=True),
            [_occurrences(text, cause) for cause in annotation.causes],
        )
        for annotation in record.important
    ]
    target = range(len(record.input), len(text))
    return RenderedText(text, (target,), annotations, has_special_tokens=False)


def _rendered_conversation(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerBase"
) -> RenderedText:
    chat = render_conversation(conversation, tokenizer)
    annotations = [
        _message_spans(conversation, chat.starts, number, annotation)
        for number, message in enumerate(conversation.messages)
        for annotation in message.important
    ]
    return RenderedText(chat.text, chat.targets, annotations, has_special_tokens=True)


def _message_spans(
    conversation: Conversation, starts: Sequence[int | None], number: int, annotation: Annotation
) -> CharSpans:
    """Return the characters of an annotation of message ``number``."""

    def occurrences(span: Span, messages: Sequence[int], is_effect: bool = False) -> list[range]:
        found = []
        for of in messages:
            content, start = conversation.messages[of].content, starts[of]
            if start is None:
                raise InputError(
                    f"{conversation.where}: the chat template changes the words of message {of}, "
                    "so annotated words cannot be found in them; remove the annotation"
                )
            inside = _occurrences(content, span, is_effect)
            found += [range(start + place.start, start + place.stop) for place in inside]
        return found

    def cause_occurrences(cause: Span) -> list[range]:
        if cause.message is not None:
            return occurrences(cause, [cause.message])
        return occurrences(cause, range(number + 1) if cause.start is None else [number])

    effect = occurrences(annotation.effect, [number], is_effect=True)
    return CharSpans(effect, [cause_occurrences(cause) for cause in annotation.causes])


def find_span(text: str, span: Span) -> list[int]:
    """Return the character offsets at which a span occurs; its own ``start`` where it has one.

    Without ``start``, the words are searched for, stripped of whitespace: whole words only, and
    whole numbers ("5" is not in "15", "5.2", "1,500", ".5" or "-5", but in "16-5" and "5%"). Case
    is ignored only where the words do not occur as written. Words of scripts without spaces
    between words need a ``start``.
    """
    if span.start is not None:
        return [span.start]
    words = span.text.strip()
    if not words:
        return []
    exact = _pattern(words, False).finditer(text) if words in text else ()
    return [m.start() for m in exact] or [m.start() for m in _pattern(words, True).finditer(text)]


def _occurrences(text: str, span: Span, is_effect: bool = False) -> list[range]:
    """Return the characters of each occurrence of a span, stripped of whitespace.

    An effect that ends the text is the answer, and its other occurrences are not.
    """
    starts = find_span(text, span)
    words = span.text if span.start is not None else span.text.strip()
    if is_effect and starts and starts[-1] + len(words) >= len(text.rstrip()):
        starts = starts[-1:]
    lead = len(words) - len(words.lstrip())
    size = len(words.strip())
    return [range(start + lead, start + lead + size) for start in starts] if size else []


@functools.lru_cache(maxsize=4096)
def _pattern(words: str, ignore_case: bool) -> re.Pattern[str]:
    left = right = ""
    if re.match(r"\w", words[0]):
        left = r"(?<!\w)"
    if words[0].isdigit():  # not within .5 or 1,500, nor -5 unless it is a subtraction
        left = r"(?<![\w.])(?<!\d,)(?<!(?<![\w)])[-−])"
    if re.match(r"\w", words[-1]):
        right = r"(?!\w)"
    if words[-1].isdigit():
        right = r"(?!\w|[.,]\d)"
    # A lookahead consumes no text, so occurrences may overlap.
    return re.compile(f"{left}(?={re.escape(words)}{right})", re.IGNORECASE if ignore_case else 0)
