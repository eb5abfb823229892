"""Conversations rendered by a tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from cat_jax.data.altered import MARK, AlteredConversation, Write, check_carried
from cat_jax.data.conversations import Conversation
from cat_jax.data.messages import template_message
from cat_jax.data.template_options import (
    check_template_options,
    check_template_variables,
    with_date,
)
from cat_jax.data.tools import function_of, with_function
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a template may raise besides the errors of jinja: its expressions are Python's."""


@dataclass(frozen=True)
class RenderedConversation:
    """A conversation as a model reads it.

    Attributes:
        text: The text, special tokens spelt out.
        starts: Character at which the content of each message starts; None where the template
            changes the content.
        targets: Characters of each trained turn of the assistant, with the token that ends it.
    """

    text: str
    starts: tuple[int | None, ...]
    targets: tuple[range, ...]


def apply_template(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    template_options: Mapping[str, Any] = MappingProxyType({}),
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
) -> str:
    """Return what ``tokenizer.apply_chat_template`` writes, the same text on every day.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: ``{"role": "user", "content": "..."}`` and so on, oldest first.
        template_options: Variables of the template, and the ``date`` that it prints;
            ``cat_jax.data.template_options.DEFAULT_DATE`` where none is given.
        tools: Functions that the assistant may call, as JSON schemas.
        add_generation_prompt: Whether to end with the header of the assistant's next message.
        continue_final_message: Whether to end with the last message, not with what ends a turn.

    Raises:
        InputError: The tokenizer has no chat template, an option cannot be one, or the template
            refuses the messages; then in its own words.
    """
    # Imported here because only chat templates need it.
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template, as base models have "
            "none: give plain text, or use the instruction-tuned model"
        )
    given: Any = [dict(tool) for tool in tools] or None
    check_template_options(template_options)
    check_template_variables(tokenizer, template_options)
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=given,
            chat_template=with_date(tokenizer.get_chat_template(tools=given), template_options),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **template_options,
        )
    except (TemplateError, *FAILURES) as error:
        raise InputError(f"the chat template refuses the messages: {error}") from error
    return cast("str", text)


def render_conversation(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerBase"
) -> RenderedConversation:
    """Render a conversation and locate exactly what the assistant writes.

    A turn of the assistant starts where the template's generation prompt ends, and ends with what
    the template writes after the content of a last message, its tool calls among it, trailing
    whitespace excluded. Contents are located by a private-use character inserted after each, not by
    a search; a message without words by one in the name of the last function that it calls.

    Raises:
        AlteredConversation: The template alters what the conversation says, such as thoughts of
            earlier answers that it drops, or leaves out tools, calls, or reasoning that is trained.
        InputError: No chat template, or one that refuses the messages or ends no turn.
    """
    messages = [template_message(message) for message in conversation.messages]
    write = partial(
        apply_template,
        tokenizer,
        template_options=conversation.template_options,
        tools=conversation.tools,
    )
    try:
        text = write(messages)
        marked, ends = _content_ends(write, messages, text)
        starts = tuple(
            _content_start(text, end, message["content"])
            for end, message in zip(ends, messages, strict=True)
        )
        targets = tuple(
            _turn(write, messages, text, marked, number, ends[number])
            for number, message in enumerate(conversation.messages)
            if message.is_trained
        )
        _check_answers(conversation, text, ends, targets)
        check_carried(write, conversation)
    except InputError as error:
        raise type(error)(f"{conversation.where}: {error}") from error
    return RenderedConversation(text, starts, targets)


def _marked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with a mark after the last visible character of each."""
    return [_marked_message(message, chr(MARK + n)) for n, message in enumerate(messages)]


def _marked_message(message: Mapping[str, Any], mark: str) -> dict[str, Any]:
    content = message["content"]
    if not content and "tool_calls" in message:
        *others, last = message["tool_calls"]
        named = with_function(last, name=function_of(last)["name"] + mark)
        return {**message, "tool_calls": [*others, named]}
    size = len(content.rstrip())
    return {**message, "content": content[:size] + mark + content[size:]}


def _content_ends(
    write: Write, messages: Sequence[Mapping[str, Any]], text: str
) -> tuple[str, list[int]]:
    """Return the marked text, and where in ``text`` the visible part of each content ends."""
    marked = write(_marked(messages))
    unmarked = marked
    ends = []
    for number, message in enumerate(messages):
        mark = chr(MARK + number)
        if marked.count(mark) != 1:
            does = "drops" if mark not in marked else "repeats"
            raise AlteredConversation(
                f"the chat template {does} message {number} (role {message['role']!r})"
            )
        ends.append(unmarked.index(mark))
        unmarked = unmarked.replace(mark, "")
    if unmarked != text or ends != sorted(ends):
        raise AlteredConversation("the chat template rearranges what the messages say")
    return marked, ends


def _content_start(text: str, end: int, content: str) -> int | None:
    """Return where the content starts, if it stands unchanged except for whitespace around it."""
    words = content.strip()
    if not text.endswith(words, 0, end):
        return None
    return end - len(content.rstrip())


def _check_answers(
    conversation: Conversation, text: str, ends: Sequence[int], targets: Sequence[range]
) -> None:
    """Raise AlteredConversation if the assistant does not say all of its words; spaces may vary."""
    answers = (n for n, m in enumerate(conversation.messages) if m.is_trained)
    for number, target in zip(answers, targets, strict=True):
        content = conversation.messages[number].content
        # The generation prompt may hold the first of them ("<think>").
        said = text[ends[number - 1] : target.stop]
        if "".join(content.split()) not in "".join(said.split()):
            raise AlteredConversation(
                f"the chat template changes what the assistant says in message {number} (thoughts "
                "of earlier answers, perhaps), and would train something else; write what the "
                "template leaves, or split the conversation so that this is its last message"
            )


def _turn(
    write: Write,
    messages: Sequence[Mapping[str, Any]],
    text: str,
    marked: str,
    number: int,
    end: int,
) -> range:
    """Return the characters of a turn of the assistant."""
    before = write(messages[:number], add_generation_prompt=True)
    if not text.startswith(before) or len(before) > end:
        raise AlteredConversation(
            f"the chat template writes what stands before message {number} differently when the "
            "conversation goes on, so the answer's start is not known exactly"
        )
    mark = chr(MARK + number)
    alone = write(_marked(messages[: number + 1]))
    closing = alone[alone.index(mark) + 1 :].rstrip()
    if not closing:
        raise InputError(
            "the chat template does not end the assistant's turns, so a model would not learn to "
            "stop; use a template with a token for the end of a turn"
        )
    if not marked[marked.index(mark) + 1 :].startswith(closing):
        raise AlteredConversation(
            f"the chat template ends message {number} differently when the conversation goes on, "
            "so the answer's end is not known exactly"
        )
    return range(len(before), end + len(closing))
