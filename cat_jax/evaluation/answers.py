"""Answers to test examples by greedy decoding, and the exact match."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example
from cat_jax.evaluation.decode import generate
from cat_jax.models import CausalLM

EXTRA_TOKENS = 4
"""How much longer than the longest right answer an answer may get."""


def answer_range(example: Example) -> range:
    """Return the tokens of an example's answer: the last run of trained ones, its end included."""
    trained = np.flatnonzero(example.target_mask)
    breaks = np.flatnonzero(np.diff(trained) > 1)
    first = trained[breaks[-1] + 1] if len(breaks) else trained[0]
    return range(int(first), int(trained[-1]) + 1)


def answers(
    model: CausalLM,
    params: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = 256,
) -> list[str]:
    """Decode greedy answers to the examples' prompts, as text without surrounding space.

    An answer ends at the tokenizer's end token, at the special token that ends a right answer
    (the end of a turn), or a few tokens after the longest right one.
    """
    ranges = [answer_range(example) for example in examples]
    ids = generate(
        model,
        params,
        [e.tokens[: found.start].tolist() for e, found in zip(examples, ranges, strict=True)],
        max_new_tokens=max(map(len, ranges)) + EXTRA_TOKENS,
        stop_ids=_stop_ids(tokenizer, examples, ranges),
        batch_size=batch_size,
    )
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def answer_matches(
    answer_ids: Sequence[int], example: Example, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Tell whether decoded ids say the same as the example's answer, but for surrounding space.

    An answer with words that the tokenizer does not know is never matched.
    """
    right = example.tokens[list(answer_range(example))].tolist()
    if tokenizer.unk_token_id in right:
        return False
    given, wanted = tokenizer.batch_decode([list(answer_ids), right], skip_special_tokens=True)
    return given.strip() == wanted.strip()


def exact_match(given: Sequence[str], targets: Sequence[str]) -> float:
    """Return the share of answers equal to their target but for surrounding space."""
    return float(np.mean([a.strip() == t.strip() for a, t in zip(given, targets, strict=True)]))


def changed_answers(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share of answers that an intervention changed."""
    return 1.0 - exact_match(before, after)


def _stop_ids(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], ranges: Sequence[range]
) -> tuple[int, ...]:
    ends = {int(e.tokens[found.stop - 1]) for e, found in zip(examples, ranges, strict=True)}
    special = {cast("int", tokenizer.eos_token_id), *(ends & set(tokenizer.all_special_ids))}
    return tuple(sorted(special))
