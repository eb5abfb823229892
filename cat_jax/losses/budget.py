"""How many logits a device computes at a time, from what the data need."""

from collections.abc import Sequence

from cat_jax.data.alignment import Example
from cat_jax.data.batches import common_shape, most_targets
from cat_jax.losses.language_modeling import LogitBudget

MIB = 2**20
ROUND = 8
WORTH = 0.75
"""Share of the positions from which on all are projected: gathering them costs, too."""


def logit_budget(examples: Sequence[Example], vocab_size: int, mib: int) -> LogitBudget:
    """Return the budget for batches of these examples.

    Args:
        examples: All sequences that are trained on, or measured.
        vocab_size: V, logits of a position.
        mib: Memory for logits, in MiB of float32.
    """
    length, _ = common_shape(examples)
    targets = -(-most_targets(examples) // ROUND) * ROUND
    tokens = tokens_at_once(vocab_size, mib)
    return LogitBudget(tokens, targets if targets < WORTH * length else None)


def tokens_at_once(vocab_size: int, mib: int) -> int:
    """Return the tokens whose logits take ``mib`` MiB of float32; at least one."""
    return max(1, mib * MIB // (4 * vocab_size))
