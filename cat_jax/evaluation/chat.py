"""Conversations as prompts."""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from cat_jax.data.chat_template import apply_template
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
    # A template may skip what it does not know, and the message would be lost.
    if not messages or any(not {"role", "content"} <= set(message) for message in messages):
        raise InputError("a conversation needs messages, each with a role and content")
    return apply_template(tokenizer, messages, add_generation_prompt=True)
