"""Conversations as prompts."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.data.chat_template import apply_template
from cat_jax.data.prompts import Prompt, encode_prompt
from cat_jax.errors import InputError


def chat_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    template_options: Mapping[str, Any] = MappingProxyType({}),
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Return the token ids of a conversation and of the header of the answer that follows.

    Whitespace that the answer's first token spells is left out; see ``cat_jax.data.prompts``.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: ``{"role": "user", "content": "..."}`` and so on, oldest first.
        template_options: Variables of the template, such as ``enable_thinking``, and the ``date``
            that it prints; those of training (``cat_jax.data.template_options``).
        tools: Functions that the assistant may call, as JSON schemas.

    Raises:
        InputError: No chat template, no messages, a message without role or content, an option
            that cannot be one, or messages that the template refuses.
    """
    return encode_chat(tokenizer, messages, template_options, tools=tools).ids


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    template_options: Mapping[str, Any] = MappingProxyType({}),
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Prompt:
    """Return what ``chat_prompt`` returns, with what is left out of it."""
    # A template may skip what it does not know, and the message would be lost.
    filled = [({"content": ""} if "tool_calls" in m else {}) | dict(m) for m in messages]
    if not filled or any(not {"role", "content"} <= set(message) for message in filled):
        raise InputError("a conversation needs messages, each with a role and content")
    text = apply_template(
        tokenizer, filled, template_options, tools=tools, add_generation_prompt=True
    )
    return encode_prompt(text, tokenizer, has_special_tokens=True)
