"""Continues prompts, or answers them as a chat, with a pretrained model."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from transformers import GenerationConfig, PreTrainedTokenizerBase

from cat_jax.errors import InputError
from cat_jax.evaluation import Sampling, chat_prompt, generate, warm_up
from cat_jax.models import CausalLM, load_pretrained
from cat_jax.models.tokenizer import load_tokenizer
from experiments.command_line import exit_status


@dataclass(frozen=True)
class Args:
    """What to generate.

    Attributes:
        model: a Hugging Face folder or hub name.
        prompt: one or more texts, decoded side by side.
        chat: each prompt is a user's message in the model's chat template.
        max_new_tokens: length of the longest answer.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens that together reach this probability.
        seed: of the draws.
        dtype: of activations.
    """

    model: Annotated[str, tyro.conf.Positional]
    prompt: tuple[str, ...]
    chat: bool = False
    max_new_tokens: int = 100
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"


def main() -> None:
    """Prints the texts, and on stderr how fast they came.

    Raises:
        InputError: bad settings, model, tokenizer or prompts.
    """
    request = tyro.cli(Args, prog="python -m experiments.generate", description=__doc__)
    if not request.prompt:
        raise InputError("--prompt names no text: give at least one")
    sampling = Sampling(request.temperature, request.top_k, request.top_p)
    config, params = load_pretrained(request.model, dtype=request.dtype)
    tokenizer = load_tokenizer(request.model, config.vocab_size)
    prompts = [encode(tokenizer, text, request.chat) for text in request.prompt]
    setting = {
        "max_new_tokens": request.max_new_tokens,
        "stop_ids": stop_ids(request.model, tokenizer),
        "sampling": sampling,
        "batch_size": len(prompts),
    }
    model = CausalLM(config)
    warm_up(model, params, prompts, **setting)
    started = time.perf_counter()
    answers = generate(model, params, prompts, seed=request.seed, **setting)
    seconds = time.perf_counter() - started
    for prompt, answer in zip(prompts, answers, strict=True):
        shown = answer if request.chat else prompt + answer
        print(tokenizer.decode(shown, skip_special_tokens=True))
    print(throughput(prompts, answers, seconds), file=sys.stderr)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, chat: bool) -> list[int]:
    """The ids of a prompt, as plain text or as a user's message."""
    if chat:
        return chat_prompt(tokenizer, [{"role": "user", "content": text}])
    return tokenizer(text).input_ids


def stop_ids(name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end token and those of ``generation_config.json``, which is optional."""
    try:
        listed = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:
        listed = None
    ends = listed if isinstance(listed, list) else [listed]
    ends = [*ends, tokenizer.eos_token_id]
    return tuple(sorted({end for end in ends if isinstance(end, int)}))


def throughput(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], seconds: float
) -> str:
    """One line of counts and speed; compilation is not part of the seconds."""
    new = sum(map(len, answers))
    return (
        f"{sum(map(len, prompts))} prompt tokens, {new} new tokens in {seconds:.2f} s: "
        f"{new / seconds:.1f} new tokens/s"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
