"""Records as text: the characters that a model reads, those it predicts, and annotated words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cat_jax.data.chat_template import render_conversation
from cat_jax.data.conversations import Conversation, TrainingRecord
from cat_jax.data.matching import find_span
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
            find_span(text, annotation.effect, is_effect=True),
            [find_span(text, cause) for cause in annotation.causes],
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
            inside = find_span(content, span, is_effect=is_effect)
            found += [range(start + place.start, start + place.stop) for place in inside]
        return found

    def cause_occurrences(cause: Span) -> list[range]:
        if cause.message is not None:
            return occurrences(cause, [cause.message])
        return occurrences(cause, range(number + 1) if cause.start is None else [number])

    effect = occurrences(annotation.effect, [number], is_effect=True)
    return CharSpans(effect, [cause_occurrences(cause) for cause in annotation.causes])
