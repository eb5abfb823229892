"""Continue prompts, or answer them as a chat, with a pretrained model."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from cat_jax.config import Dtype
from cat_jax.errors import InputError
from experiments.command_line import exit_status


@dataclass(frozen=True)
class Args:
    """What to generate.

    Attributes:
        model: Hugging Face folder or hub name.
        prompt: One or more texts, decoded as one batch.
        chat: Each prompt is a user's message in the model's chat template.
        max_new_tokens: Largest number of new tokens.
        temperature: Divides the logits; 0 is greedy decoding.
        top_k: Sample from the k most probable tokens only.
        top_p: Sample from the fewest most probable tokens that together reach this probability.
        seed: Seed of sampling.
        dtype: Dtype of activations.
    """

    model: Annotated[str, tyro.conf.Positional]
    prompt: tuple[str, ...]
    chat: bool = False
    max_new_tokens: int = 100
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    dtype: Dtype = "float32"


def main() -> None:
    """Print the texts, and on stderr how fast they were decoded.

    Raises:
        InputError: Bad settings, model, tokenizer or prompts.
    """
    args = tyro.cli(Args, prog="python -m experiments.generate", description=__doc__)
    if not args.prompt:
        raise InputError("--prompt names no text: give at least one")
    from cat_jax.evaluation import Sampling, complete
    from cat_jax.models import load_language_model

    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    completions = complete(
        load_language_model(args.model, dtype=args.dtype),
        args.prompt,
        chat=args.chat,
        max_new_tokens=args.max_new_tokens,
        sampling=sampling,
        seed=args.seed,
    )
    print(*completions.texts, sep="\n")
    print(completions, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_status(main))
