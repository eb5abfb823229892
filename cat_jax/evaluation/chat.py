"""Conversations as prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.errors import InputError


def chat_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Token ids of a conversation and of the header of the answer that is to follow.

    Args:
        tokenizer: one with a chat template.
        messages: ``{"role": "user", "content": "..."}`` and so on, oldest first.

    Raises:
        InputError: no chat template, no messages, a message without role or content, or one that
            the template refuses.
    """
    # Imported here because only chat templates need it.
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template, as base models have "
            "none: give plain text, or use the instruction-tuned model"
        )
    # A template may skip what it does not know, and the message would be lost.
    if not messages or any(not {"role", "content"} <= set(message) for message in messages):
        raise InputError("a conversation needs messages, each with a role and content")
    try:
        ids: Any = tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_dict=False
        )
    except TemplateError as error:
        raise InputError(f"the chat template refuses the messages: {error}") from error
    return ids
