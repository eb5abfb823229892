"""From prompts as text to their continuations as text."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cat_jax.evaluation.chat import chat_prompt
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
    """

    texts: list[str]
    prompt_tokens: int
    new_tokens: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.prompt_tokens} prompt tokens, {self.new_tokens} new tokens in "
            f"{self.seconds:.2f} s: {self.new_tokens / self.seconds:.1f} new tokens/s"
        )


def complete(
    model: LanguageModel,
    prompts: Sequence[str],
    *,
    chat: bool = False,
    max_new_tokens: int = 100,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> Completions:
    """Continue prompts, all in one batch, up to an end token.

    Args:
        model: Model and tokenizer, such as a ``RunResult`` or what ``load_language_model`` gives.
        prompts: Texts; at least one.
        chat: Each prompt is a user's message in the model's chat template.
        max_new_tokens: Largest number of new tokens.
        sampling: Temperature and filters.
        seed: Seed of sampling; 0 to 2**32 - 1.

    Raises:
        InputError: Bad settings or prompts; see ``generate`` and ``chat_prompt``.
    """
    ids = [_encode(model, text, chat) for text in prompts]
    settings = {
        "max_new_tokens": max_new_tokens,
        "stop_ids": model.stop_ids,
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
    )


def _encode(model: LanguageModel, text: str, chat: bool) -> list[int]:
    if chat:
        return chat_prompt(model.tokenizer, [{"role": "user", "content": text}])
    return model.tokenizer(text).input_ids
