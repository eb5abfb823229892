"""Conversations rendered by a tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cat_jax.data.conversations import TRAINED_ROLE, Conversation
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = 0xF0000
"""First of the private-use characters that mark where messages end."""


@dataclass(frozen=True)
class RenderedConversation:
    """A conversation as a model reads it.

    Attributes:
        text: The text, special tokens spelt out.
        starts: Character at which the content of each message starts; None where the template
            changes the content.
        targets: Characters of each turn of the assistant, with the token that ends the turn.
    """

    text: str
    starts: tuple[int | None, ...]
    targets: tuple[range, ...]


def apply_template(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]], **options: Any
) -> Any:
    """Call ``tokenizer.apply_chat_template``, and turn its errors into InputError.

    Raises:
        InputError: The tokenizer has no chat template, or the template refuses the messages.
    """
    # Imported here because only chat templates need it.
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template, as base models have "
            "none: give plain text, or use the instruction-tuned model"
        )
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages], return_dict=False, **options
        )
    except TemplateError as error:
        raise InputError(f"the chat template refuses the messages: {error}") from error


def render_conversation(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerBase"
) -> RenderedConversation:
    """Render a conversation and locate exactly what the assistant writes.

    A turn of the assistant starts where the template's generation prompt ends, and ends with what
    the template writes after the content of a last message, trailing whitespace excluded. Contents
    are located by a private-use character inserted after each, not by a search.

    Raises:
        InputError: No chat template, or one that does not allow this.
    """
    messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
    try:
        text = _text(tokenizer, messages)
        marked, ends = _content_ends(tokenizer, messages, text)
        starts = tuple(
            _content_start(text, end, message["content"])
            for end, message in zip(ends, messages, strict=True)
        )
        targets = tuple(
            _turn(tokenizer, messages, text, marked, number, ends[number])
            for number, message in enumerate(messages)
            if message["role"] == TRAINED_ROLE
        )
    except InputError as error:
        raise InputError(f"{conversation.where}: {error}") from error
    return RenderedConversation(text, starts, targets)


def _text(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]], **options: Any
) -> str:
    return apply_template(tokenizer, messages, tokenize=False, **options)


def _marked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the messages with a mark after the last visible character of each."""

    def mark(content: str, number: int) -> str:
        size = len(content.rstrip())
        return content[:size] + chr(MARK + number) + content[size:]

    return [
        {**message, "content": mark(message["content"], number)}
        for number, message in enumerate(messages)
    ]


def _content_ends(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]], text: str
) -> tuple[str, list[int]]:
    """Return the marked text, and where in ``text`` the visible part of each content ends."""
    marked = _text(tokenizer, _marked(messages))
    unmarked = marked
    ends = []
    for number, message in enumerate(messages):
        mark = chr(MARK + number)
        if marked.count(mark) != 1:
            does = "drops" if mark not in marked else "repeats"
            raise InputError(
                f"the chat template {does} message {number} (role {message['role']!r})"
            )
        ends.append(unmarked.index(mark))
        unmarked = unmarked.replace(mark, "")
    if unmarked != text or ends != sorted(ends):
        raise InputError("the chat template rearranges what the messages say")
    return marked, ends


def _content_start(text: str, end: int, content: str) -> int | None:
    """Return where the content starts, if it stands unchanged except for whitespace around it."""
    words = content.strip()
    if not text.endswith(words, 0, end):
        return None
    return end - len(content.rstrip())


def _turn(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    text: str,
    marked: str,
    number: int,
    end: int,
) -> range:
    """Return the characters of a turn of the assistant."""
    before = _text(tokenizer, messages[:number], add_generation_prompt=True)
    if not text.startswith(before) or len(before) > end:
        raise InputError(
            f"the chat template writes what stands before message {number} differently when the "
            "conversation goes on, so the answer's start is not known exactly"
        )
    mark = chr(MARK + number)
    alone = _text(tokenizer, _marked(messages[: number + 1]))
    closing = alone[alone.index(mark) + 1 :].rstrip()
    if not closing:
        raise InputError(
            "the chat template does not end the assistant's turns, so a model would not learn to "
            "stop; use a template with a token for the end of a turn"
        )
    if not marked[marked.index(mark) + 1 :].startswith(closing):
        raise InputError(
            f"the chat template ends message {number} differently when the conversation goes on, "
            "so the answer's end is not known exactly"
        )
    return range(len(before), end + len(closing))
