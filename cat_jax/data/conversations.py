"""Conversations, and files whose lines are conversations, records or plain text.

A conversation is one line::

    {"messages": [{"role": "user", "content": "Smoking: 8. Risk?"},
                  {"role": "assistant", "content": "High Risk",
                   "important": [{"High Risk": ["Smoking: 8"]}]}]}

The effects of a message's ``important`` stand in its own content. A cause is searched for in that
and in the content of all messages before; ``{"text": "8", "start": 9, "message": 0}`` pins it in
message 0, and without ``message`` in the message itself. The names of roles and what else a chat
template writes are never searched.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cat_jax.data.records import (
    Annotation,
    Record,
    check_span,
    parse_annotations,
    parse_record,
    parse_text,
)
from cat_jax.errors import InputError

TRAINED_ROLE = "assistant"


@dataclass(frozen=True)
class Message:
    """What one side says; ``role`` is "system", "user", "assistant" or what else a template knows.

    Attributes:
        role: who speaks.
        content: the words.
        important: which words of the content depend on which words here or before.
    """

    role: str
    content: str
    important: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """One training row; the model learns what the assistant says.

    Attributes:
        messages: oldest first.
        where: the line it was read from, for messages.

    Raises:
        InputError: the assistant says nothing, or a span does not stand where it says.
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
        """The annotations of all messages."""
        return tuple(note for message in self.messages for note in message.important)

    def _check_spans(self, number: int) -> None:
        for note in self.messages[number].important:
            if note.effect.message is not None:
                raise InputError(
                    f"the effect {note.effect.text!r} names a message; it stands in its own"
                )
            for span in (note.effect, *note.causes):
                of = number if span.message is None else span.message
                if of > number:
                    raise InputError(
                        f"the cause {span.text!r} names message {of}, which is not before "
                        f"message {number}"
                    )
                check_span(span, self.messages[of].content, f"the content of message {of}")


TrainingRecord = Record | Conversation

KINDS = (("messages",), ("text",), ("input", "target"))


def parse_training_record(row: dict[str, Any], where: str) -> TrainingRecord:
    """Parse one item of a data set; which of three kinds it is, its fields tell.

    Raises:
        InputError: Fields of no kind, or of two; nothing to train.
    """
    kinds = [names for names in KINDS if row.keys() & set(names)]
    _check_spelling(row, where)
    if len(kinds) != 1:
        found = "fields of two kinds" if kinds else "no field to train on"
        raise InputError(
            f"{where}: {found}; a row has 'input' and 'target', or 'messages', or 'text'"
        )
    if "messages" in row:
        return _parse_conversation(row, where)
    if "text" in row:
        row = row | {"input": "", "target": parse_text(row, "text", where)}
    record = parse_record(row, where)
    if not record.target:
        raise InputError(f"{where}: the field {kinds[0][-1]!r} is empty, so nothing is trained")
    return record


def _check_spelling(row: dict[str, Any], where: str) -> None:
    known = {"important"}.union(*KINDS)
    for name in row.keys() - known:
        near = difflib.get_close_matches(name, known - row.keys(), n=1, cutoff=0.8)
        if near:
            raise InputError(f"{where}: unknown field {name!r}; did you mean {near[0]!r}?")


def _parse_conversation(row: dict[str, Any], where: str) -> Conversation:
    if "important" in row:
        raise InputError(f"{where}: 'important' belongs in the message whose words it explains")
    if not isinstance(row["messages"], list):
        raise InputError(f"{where}: the field 'messages' must be a list of messages")
    messages = tuple(_parse_messages(row["messages"], where))
    try:
        return Conversation(messages, where)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _parse_messages(values: list[Any], where: str) -> Iterator[Message]:
    for number, value in enumerate(values):
        place = f"{where}, message {number}"
        if not isinstance(value, dict):
            raise InputError(f"{place}: expected an object with 'role' and 'content'")
        unknown = value.keys() - {"role", "content", "important"}
        if unknown:  # such as tool calls: training as if they were not there is something else
            raise InputError(f"{place}: the field {min(unknown)!r} has no use here; remove it")
        role, content = (parse_text(value, name, place) for name in ("role", "content"))
        yield Message(role, content, parse_annotations(value, place))
