"""Conversations of messages.

In a JSONL file, one line is one conversation::

    {"messages": [{"role": "user", "content": "Smoking: 8. Risk?"},
                  {"role": "assistant", "content": "High Risk",
                   "important": [{"High Risk": ["Smoking: 8"]}]}]}

The effects of a message's ``important`` stand in its own content. A cause is searched for in that
content and in those of all earlier messages. ``{"text": "8", "start": 9, "message": 0}`` names
the place instead: character 9 of message 0, or of the same message where ``message`` is missing.
Names of roles and whatever else a chat template writes are never searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cat_jax.data.records import Annotation, Record, check_span
from cat_jax.data.template_options import check_template_options
from cat_jax.data.tools import parse_tool_calls, parse_tools
from cat_jax.errors import InputError

TRAINED_ROLE = "assistant"


@dataclass(frozen=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: "system", "user", "assistant", "tool" or another role that the chat template knows.
        content: The words; empty only where the assistant calls tools.
        important: Which words of the content depend on which words of it or of earlier messages.
        tool_calls: Calls of functions by the assistant, ``{"function": {"name": .., "arguments":
            {..}}}`` or the function alone.
        reasoning_content: Thoughts of the assistant before its words.
        name: Name of the speaker or tool, where the template writes it.
        tool_call_id: Call that a tool's message answers, where the template writes it.
        train: Whether the assistant's turn is a target; without meaning for other roles.

    Raises:
        InputError: A tool call has another form.
    """

    role: str
    content: str
    important: tuple[Annotation, ...] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, kw_only=True)
    reasoning_content: str | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    tool_call_id: str | None = field(default=None, kw_only=True)
    train: bool = field(default=True, kw_only=True)

    def __post_init__(self):
        calls = parse_tool_calls(self.tool_calls, f"a message of the {self.role}")
        object.__setattr__(self, "tool_calls", calls)

    @property
    def is_trained(self) -> bool:
        """Whether the message is a target."""
        return self.train and self.role == TRAINED_ROLE


@dataclass(frozen=True)
class Conversation:
    """A conversation; every message of the assistant is a target, unless it says ``train=False``.

    Attributes:
        messages: Messages, oldest first.
        where: Where it was read ("train.jsonl, line 3"), for error messages.
        tools: Functions that the assistant may call, as JSON schemas.
        template_options: Variables of the chat template, such as ``enable_thinking``, and the
            ``date`` that it prints (``cat_jax.data.template_options``).

    Raises:
        InputError: The assistant says nothing or speaks first, none of its messages is trained, a
            span does not stand where it says, or a template option cannot be one.
    """

    messages: tuple[Message, ...]
    where: str = field(default="a conversation", compare=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, kw_only=True)
    template_options: Mapping[str, Any] = field(default_factory=dict, hash=False, kw_only=True)

    def __post_init__(self):
        check_template_options(self.template_options)
        parse_tools(self.tools, "a conversation")
        said = [message for message in self.messages if message.role == TRAINED_ROLE]
        if not said or not all(message.content or message.tool_calls for message in said):
            raise InputError(
                "the assistant says nothing; a conversation needs messages with the role "
                "'assistant' and none of them empty"
            )
        if self.messages[0].role == TRAINED_ROLE:
            raise InputError(
                "message 0 is the assistant's and answers nothing; begin with the message that it "
                "answers, or leave it out"
            )
        if not any(message.is_trained for message in said):
            raise InputError(
                "no message of the assistant is trained; leave out 'train' or 'weight' of one"
            )
        for number in range(len(self.messages)):
            self._check_spans(number)

    @property
    def important(self) -> tuple[Annotation, ...]:
        """Return the annotations of all messages."""
        return tuple(annotation for message in self.messages for annotation in message.important)

    def _check_spans(self, number: int) -> None:
        message = self.messages[number]
        if message.important and message.role == TRAINED_ROLE and not message.train:
            raise InputError(
                f"message {number} is not trained, so the query of its effect "
                f"{message.important[0].effect.text!r} is not guided; remove 'important', or train "
                "the message"
            )
        for annotation in message.important:
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
