"""Where answers end: the tokens that training teaches as ends."""

from collections.abc import Collection, Sequence

import numpy as np

from cat_jax.data.alignment import Example


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
