"""Tools, tool calls and reasoning that a chat template leaves out."""

from collections.abc import Callable
from itertools import count
from typing import Any

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.messages import template_message
from cat_jax.data.tools import function_of, with_function
from cat_jax.errors import InputError

MARK = 0xF0000
"""First of the private-use characters that mark where messages end."""
CARRIED = MARK + 0x8000
"""First of those that mark what must be carried into the text."""

Write = Callable[..., str]
"""``apply_template`` with the tokenizer, options and tools of a conversation."""


class AlteredConversation(InputError):
    """A conversation whose words or turns a chat template alters, so they are not known exactly."""


def check_carried(write: Write, conversation: Conversation) -> None:
    """Check that a template writes all tools and tool calls, and the reasoning of trained turns.

    Each is marked by a private-use character, and the marks must stand in the text. Reasoning of
    turns that are not trained may be dropped, as it is where the model answers.

    Raises:
        AlteredConversation: Something is left out.
    """
    marks = (chr(number) for number in count(CARRIED))
    expected: dict[str, str] = {}

    def mark(what: str) -> str:
        expected[found := next(marks)] = what
        return found

    tools = [
        with_function(tool, name=function_of(tool)["name"] + mark("the tools"))
        for tool in conversation.tools
    ]
    messages = [_marked(m, f"of message {n}", mark) for n, m in enumerate(conversation.messages)]
    if not expected:
        return
    text = write(messages, tools=tools)
    for sign, what in expected.items():
        if sign not in text:
            raise AlteredConversation(
                f"the chat template leaves out {what}; use a model whose template writes them, or "
                "remove them"
            )


def _marked(message: Message, place: str, mark: Callable[[str], str]) -> dict[str, Any]:
    fields = template_message(message)
    if message.tool_calls:
        fields["tool_calls"] = [
            _marked_call(call, f"the tool calls {place}", mark) for call in message.tool_calls
        ]
    if message.reasoning_content and message.is_trained:
        fields["reasoning_content"] = message.reasoning_content.rstrip() + mark(
            f"the reasoning {place}"
        )
    return fields


def _marked_call(call: Any, what: str, mark: Callable[[str], str]) -> dict[str, Any]:
    function = function_of(call)
    return with_function(
        call,
        name=function["name"] + mark(what),
        arguments={**function["arguments"], mark(what): mark(what)},
    )
