"""Continue prompts, or answer them as a chat, with a pretrained model."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from cat_jax.config import Dtype, ParamDtype
from cat_jax.errors import InputError
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to generate.

    Attributes:
        model: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        prompt: One or more texts, decoded as one batch.
        base: Base model of an adapter; None takes the one that the adapter names.
        chat: Each prompt is a user's message in the model's chat template.
        template_options: Variables of the chat template (enable_thinking=false), and the date that
            it prints (date=2026-01-31): those of training.
        max_new_tokens: Largest number of new tokens.
        temperature: Divides the logits; 0 is greedy decoding.
        top_k: Sample from the k most probable tokens only.
        top_p: Sample from the fewest most probable tokens that together reach this probability.
        seed: Seed of sampling.
        dtype: Dtype of activations.
        param_dtype: Dtype of the parameters; int8 holds the projections' kernels in 8 bits, stored
            takes that of the files.
    """

    model: Annotated[str, tyro.conf.Positional]
    prompt: tuple[str, ...]
    base: str | None = None
    chat: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 100
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    dtype: Dtype = "float32"
    param_dtype: ParamDtype = "float32"


def main() -> None:
    """Print the texts, and on stderr how fast they were decoded.

    Raises:
        InputError: Bad settings, model, tokenizer or prompts.
    """
    args = parse_arguments(Args, prog="python -m experiments.generate", description=__doc__)
    if not args.prompt:
        raise InputError("--prompt names no text: give at least one")
    if args.template_options and not args.chat:
        raise InputError("--template-options are of a chat template: add --chat")
    from cat_jax.evaluation import Sampling, complete
    from cat_jax.models import load_language_model

    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    model = load_language_model(
        args.model, base=args.base, dtype=args.dtype, param_dtype=args.param_dtype
    )
    completions = complete(
        model,
        args.prompt,
        chat=args.chat,
        template_options=args.template_options,
        max_new_tokens=args.max_new_tokens,
        sampling=sampling,
        seed=args.seed,
    )
    print(*completions.texts, sep="\n")
    print(completions, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_status(main))
