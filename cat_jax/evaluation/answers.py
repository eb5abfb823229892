"""Answers to test examples by greedy decoding, and the exact match."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example
from cat_jax.data.ends import taught_end_ids
from cat_jax.evaluation.decode import generate, until_stop
from cat_jax.models import CausalLM

EXTRA_TOKENS = 4
"""How much longer than the longest right answer an answer may get."""


def answer_range(example: Example) -> range:
    """Return the tokens of an example's answer: the last run of trained ones, its end included."""
    trained = np.flatnonzero(example.target_mask)
    breaks = np.flatnonzero(np.diff(trained) > 1)
    first = trained[breaks[-1] + 1] if len(breaks) else trained[0]
    return range(int(first), int(trained[-1]) + 1)


def decode_answers(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    end_ids: Collection[int] = (),
    batch_size: int = 256,
) -> list[list[int]]:
    """Decode greedy answers to the examples' prompts, as token ids without the end.

    The prompts are the ids of training before the first answer token.

    Args:
        model: The model.
        params: Its parameters.
        tokenizer: Its tokenizer.
        examples: Examples of one record each, with a prompt.
        end_ids: Tokens that end an answer, besides the tokenizer's end token and the special
            tokens that end what is trained of the examples; ``LanguageModel.stop_ids``. An answer
            also ends a few tokens after the longest right one.
        batch_size: Prompts that are decoded at a time.
    """
    ranges = [answer_range(example) for example in examples]
    return generate(
        model,
        params,
        [e.tokens[: found.start].tolist() for e, found in zip(examples, ranges, strict=True)],
        max_new_tokens=max(map(len, ranges)) + EXTRA_TOKENS,
        stop_ids=answer_stop_ids(tokenizer, examples, end_ids),
        batch_size=batch_size,
    )


def answers(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    end_ids: Collection[int] = (),
    batch_size: int = 256,
) -> list[str]:
    """Return what ``decode_answers`` returns as text without surrounding space."""
    ids = decode_answers(model, params, tokenizer, examples, end_ids=end_ids, batch_size=batch_size)
    return answer_texts(ids, tokenizer)


def answer_texts(ids: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return answers as text, without special tokens and surrounding space."""
    texts = tokenizer.batch_decode([list(answer) for answer in ids], skip_special_tokens=True)
    return [text.strip() for text in texts]


def answer_matches(
    answer_ids: Sequence[int],
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    *,
    end_ids: Collection[int] = (),
) -> bool:
    """Tell whether an answer says the same as the example's, but for surrounding space.

    Both are decoded in the same way, so a right answer is right whatever decoding does to it:
    normalisation, clean-up of spaces, part of the prompt in the first token, special tokens. Both
    end at their first end token. An answer with words that the tokenizer does not know is never
    matched.

    Args:
        answer_ids: Token ids of the answer, with or without its end.
        example: Example of one record.
        tokenizer: Tokenizer of both.
        end_ids: Tokens that ended the answer, as in ``decode_answers``.
    """
    right = example.tokens[list(answer_range(example))].tolist()
    if tokenizer.unk_token_id in right:
        return False
    stops = answer_stop_ids(tokenizer, [example], end_ids)
    given, right = until_stop(list(answer_ids), stops), until_stop(right, stops)
    skip = not set(right) & set(tokenizer.all_special_ids)
    given, right = tokenizer.batch_decode([given, right], skip_special_tokens=skip)
    return given.strip() == right.strip()


def exact_match(given: Sequence[str], targets: Sequence[str]) -> float:
    """Return the share of answers equal to their target but for surrounding space."""
    return float(np.mean([a.strip() == t.strip() for a, t in zip(given, targets, strict=True)]))


def changed_answers(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share of answers that an intervention changed."""
    return 1.0 - exact_match(before, after)


def answer_stop_ids(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], end_ids: Collection[int]
) -> tuple[int, ...]:
    """Return the tokens that end an answer: the tokenizer's, those of training, and ``end_ids``."""
    taught = taught_end_ids(examples, tokenizer.all_special_ids)
    return tuple(sorted({cast("int", tokenizer.eos_token_id), *taught, *end_ids}))
