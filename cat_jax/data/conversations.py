"""Conversations, and data sets whose items are conversations, records or plain text.

In a JSONL file, one line is one conversation::

    {"messages": [{"role": "user", "content": "Smoking: 8. Risk?"},
                  {"role": "assistant", "content": "High Risk",
                   "important": [{"High Risk": ["Smoking: 8"]}]}]}

The effects of a message's ``important`` stand in its own content. A cause is searched for in that
content and in those of all earlier messages. ``{"text": "8", "start": 9, "message": 0}`` names
the place instead: character 9 of message 0, or of the same message where ``message`` is missing.
Names of roles and whatever else a chat template writes are never searched.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cat_jax.data.records import (
    Annotation,
    Record,
    check_span,
    important_field,
    parse_annotations,
    parse_record,
    parse_text,
    present,
    record_fields,
)
from cat_jax.errors import InputError

TRAINED_ROLE = "assistant"


@dataclass(frozen=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: "system", "user", "assistant" or another role that the chat template knows.
        content: The words.
        important: Which words of the content depend on which words of it or of earlier messages.
    """

    role: str
    content: str
    important: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A conversation; every message of the assistant is a target.

    Attributes:
        messages: Messages, oldest first.
        where: Where it was read ("train.jsonl, line 3"), for error messages.

    Raises:
        InputError: The assistant says nothing, or a span does not stand where it says.
    """

    messages: tuple[Message, ...]
    where: str = field(default="a conversation", compare=False)

    def __post_init__(self):
        trained = [message for message in self.messages if message.role == TRAINED_ROLE]
        if not trained or not all(message.content for message in trained):
            raise InputError(
                "the assistant says nothing; a conversation needs messages with the role "
                "'assistant' and none of them empty"
            )
        for number in range(len(self.messages)):
            self._check_spans(number)

    @property
    def important(self) -> tuple[Annotation, ...]:
        """Return the annotations of all messages."""
        return tuple(annotation for message in self.messages for annotation in message.important)

    def _check_spans(self, number: int) -> None:
        for annotation in self.messages[number].important:
            effect = annotation.effect
            if effect.message is not None:
                raise InputError(
                    f"the effect {effect.text!r} names a message, but effects stand in the "
                    "message that they annotate; remove 'message'"
                )
            for span in (effect, *annotation.causes):
                of = number if span.message is None else span.message
                if of > number:
                    raise InputError(
                        f"the cause {span.text!r} names message {of}, which is not before "
                        f"message {number}"
                    )
                check_span(span, self.messages[of].content, f"the content of message {of}")


TrainingRecord = Record | Conversation
"""Item of a data set."""

KINDS = (("messages",), ("text",), ("input", "target"))


def parse_training_record(fields: Mapping[str, Any], where: str) -> TrainingRecord:
    """Build a record or a conversation, whichever the fields describe; None is a missing field.

    Raises:
        InputError: The fields describe neither or both, or there is nothing to train.
    """
    fields = present(fields)
    _check_spelling(fields, where)
    kinds = [names for names in KINDS if fields.keys() & set(names)]
    if len(kinds) != 1:
        found = "fields of two kinds" if kinds else "no field to train on"
        raise InputError(
            f"{where}: {found}; a record has 'input' and 'target', or 'messages', or 'text'"
        )
    if "messages" in fields:
        return _parse_conversation(fields, where)
    if "text" in fields:
        fields |= {"input": "", "target": parse_text(fields, "text", where)}
    record = parse_record(fields, where)
    if not record.target:
        raise InputError(f"{where}, field {kinds[0][-1]!r}: empty, so there is nothing to train")
    return record


def training_record_fields(record: TrainingRecord) -> dict[str, Any]:
    """Return the fields that ``parse_training_record`` reads."""
    if isinstance(record, Record):
        return record_fields(record)
    messages = [
        {"role": message.role, "content": message.content} | important_field(message.important)
        for message in record.messages
    ]
    return {"messages": messages}


def _check_spelling(fields: Mapping[str, Any], where: str) -> None:
    known = {"important"}.union(*KINDS)
    for name in fields.keys() - known:
        near = difflib.get_close_matches(name, known - fields.keys(), n=1, cutoff=0.8)
        if near:
            raise InputError(f"{where}: unknown field {name!r}; did you mean {near[0]!r}?")


def _parse_conversation(fields: Mapping[str, Any], where: str) -> Conversation:
    if "important" in fields:
        raise InputError(
            f"{where}, field 'important': annotations of a conversation belong in the message "
            "whose words they explain"
        )
    if not isinstance(fields["messages"], list | tuple):
        raise InputError(f"{where}, field 'messages': must be a list of messages")
    messages = tuple(_parse_messages(fields["messages"], where))
    try:
        return Conversation(messages, where)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _parse_messages(messages: list[Any] | tuple[Any, ...], where: str) -> Iterator[Message]:
    for number, message in enumerate(messages):
        place = f"{where}, message {number}"
        if not isinstance(message, Mapping):
            raise InputError(f"{place}: expected an object with 'role' and 'content'")
        fields = present(message)
        unknown = fields.keys() - {"role", "content", "important"}
        if unknown:  # such as tool calls: training as if they were not there is something else
            raise InputError(f"{place}, field {min(unknown)!r}: has no use here; remove it")
        role, content = (parse_text(fields, name, place) for name in ("role", "content"))
        yield Message(role, content, parse_annotations(fields, place))
