"""From prompts as text to their continuations as text."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cat_jax.data.prompts import encode_prompt, first_ids
from cat_jax.errors import InputError
from cat_jax.evaluation.chat import encode_chat
from cat_jax.evaluation.decode import generate, warm_up
from cat_jax.evaluation.sampling import GREEDY, Sampling
from cat_jax.models import LanguageModel


@dataclass(frozen=True)
class Completions:
    """Decoded texts, and how fast they were decoded.

    Attributes:
        texts: One for each prompt: the prompt and what follows, or the answer alone in a chat.
        prompt_tokens: Tokens of all prompts.
        new_tokens: Tokens of all continuations, without end tokens.
        seconds: Time of decoding, compilation left out.
        cut: Continuations that the model's last position ended.
    """

    texts: list[str]
    prompt_tokens: int
    new_tokens: int
    seconds: float
    cut: int = 0

    def __str__(self) -> str:
        cut = f"; {self.cut} ended by the model's last position" if self.cut else ""
        return (
            f"{self.prompt_tokens} prompt tokens, {self.new_tokens} new tokens in "
            f"{self.seconds:.2f} s: {self.new_tokens / self.seconds:.1f} new tokens/s{cut}"
        )


def complete(
    model: LanguageModel,
    prompts: Sequence[str],
    *,
    chat: bool = False,
    template_options: Mapping[str, Any] = MappingProxyType({}),
    max_new_tokens: int = 100,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> Completions:
    """Continue prompts, all in one batch, up to an end token.

    Prompts are tokenised as in training, where an answer follows (``cat_jax.data.prompts``): a
    space at a prompt's end that belongs to the next word's token is left for the model to write.

    Args:
        model: Model and tokenizer, such as a ``RunResult`` or what ``load_language_model`` gives.
        prompts: Texts; at least one.
        chat: Each prompt is a user's message in the model's chat template.
        template_options: Variables of the chat template, and the ``date`` that it prints; those of
            training. Of use with ``chat`` alone.
        max_new_tokens: Largest number of new tokens; the model's last position ends them too.
        sampling: Temperature and filters.
        seed: Seed of sampling; 0 to 2**32 - 1.

    Raises:
        InputError: Bad settings or prompts; see ``generate`` and ``chat_prompt``.
    """
    if template_options and not chat:
        raise InputError("template_options are of a chat template: set chat, or leave them out")
    encoded = [
        encode_chat(model.tokenizer, [{"role": "user", "content": text}], template_options)
        if chat
        else encode_prompt(text, model.tokenizer)
        for text in prompts
    ]
    ids = [prompt.ids for prompt in encoded]
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "stop_ids": model.stop_ids,
        "first_ids": [first_ids(prompt, model.tokenizer) for prompt in encoded],
        "sampling": sampling,
        "batch_size": len(ids),
    }
    warm_up(model.model, model.params, ids, **settings)
    started = time.perf_counter()
    new = generate(model.model, model.params, ids, seed=seed, **settings)
    seconds = time.perf_counter() - started
    shown = new if chat else [a + b for a, b in zip(ids, new, strict=True)]
    return Completions(
        model.tokenizer.batch_decode(shown, skip_special_tokens=True),
        prompt_tokens=sum(map(len, ids)),
        new_tokens=sum(map(len, new)),
        seconds=seconds,
        cut=sum(
            len(a) + len(b) == model.model.config.max_positions
            for a, b in zip(ids, new, strict=True)
        ),
    )
