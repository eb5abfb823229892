"""Where answers end: the tokens that training teaches as ends, and those that end a line."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cat_jax.data.alignment import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def taught_end_ids(examples: Sequence[Example], special_ids: Collection[int]) -> tuple[int, ...]:
    """Return the special tokens with which what is trained of the examples ends.

    In a conversation each turn of the assistant ends with one.

    Args:
        examples: Examples of one record each, not packed.
        special_ids: Ids of the tokenizer's special tokens.
    """
    last = set()
    for example in examples:
        follows = np.append(example.target_mask[1:], False)
        last |= set(example.tokens[example.target_mask & ~follows].tolist())
    return tuple(sorted(last & set(special_ids)))


def line_end_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Return the tokens that spell a line break, whatever else they spell."""
    texts = tokenizer.batch_decode([[n] for n in range(len(tokenizer))])
    return tuple(n for n, text in enumerate(texts) if "\n" in text)
