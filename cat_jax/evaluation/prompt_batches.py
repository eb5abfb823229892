"""Prompts as batches of arrays: padded, and packed where several fit a row."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.models import ModelConfig
from cat_jax.types import Array, Int

LENGTH_STEP = 32
FEWEST_PACKED = 8
"""Prompts of a batch from which on several may share a row; of fewer each number of rows would be a
program of its own, for little."""

FirstIds = Sequence[Sequence[int] | None] | None


class PromptBatch(NamedTuple):
    """Prompts packed into rows, for one pass through the model.

    Attributes:
        tokens_RT: Token ids; zeros behind the last prompt of a row.
        segment_ids_RT: Which prompt of its row a token belongs to, from 1; 0 is padding.
        positions_RT: Position of each token in its prompt.
        rows_B: Row of each prompt.
        starts_B: Where it starts there.
        lengths_B: Its length.
        keys_B: Keys of its draws.
        first_BV: With which tokens each answer may begin; None where all of them may.
    """

    tokens_RT: Int[Array, "R T"]
    segment_ids_RT: Int[Array, "R T"]
    positions_RT: Int[Array, "R T"]
    rows_B: Int[Array, " B"]
    starts_B: Int[Array, " B"]
    lengths_B: Int[Array, " B"]
    keys_B: Array
    first_BV: Array | None


def padded_length(length: int) -> int:
    """Return the width to which prompts of at most ``length`` tokens are padded.

    Multiples of 32 up to 256 and four widths per doubling from there: few compilations, and at
    most a quarter more tokens in a long prompt.
    """
    step = max(LENGTH_STEP, 2 ** ((length - 1).bit_length() - 3))
    return length + -length % step


def allowed_first(first_ids: FirstIds, config: ModelConfig) -> Callable[[int], np.ndarray] | None:
    """Return what gives the first tokens of the answer to a prompt, as bool [V]; None: any."""
    if first_ids is None or all(ids is None for ids in first_ids):
        return None

    def of(index: int) -> np.ndarray:
        ids = first_ids[index]
        every = np.arange(config.vocab_size)
        return np.ones(len(every), bool) if ids is None else np.isin(every, ids)

    return of


def prompt_batches(
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    seed: int,
    allowed: Callable[[int], np.ndarray] | None = None,
    *,
    pack: bool = True,
) -> Iterator[PromptBatch]:
    """Yield batches of one shape; without ``pack`` each prompt has a row of its own."""
    width = padded_length(max(map(len, prompts), default=1))
    batch_size = min(batch_size, 1 << (len(prompts) - 1).bit_length())
    draw_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))
    pack = pack and batch_size >= FEWEST_PACKED
    batches = []
    for start in range(0, len(prompts), batch_size):
        # Copies complete the last batch: they end with their original, and hold nothing up.
        indices_B = np.minimum(np.arange(start, start + batch_size), len(prompts) - 1)
        lengths_B = np.array([len(prompts[index]) for index in indices_B])
        places = _places(lengths_B, width) if pack else (np.arange(batch_size), 0 * lengths_B)
        batches.append((indices_B, lengths_B, *places))
    # Few shapes: eighths of the batch.
    step = max(1, batch_size // 8)
    rows = max((int(rows_B.max()) + 1 for _, _, rows_B, _ in batches), default=0)
    rows += -rows % step
    for indices_B, lengths_B, rows_B, starts_B in batches:
        tokens_RT, segment_ids_RT, positions_RT = np.zeros((3, rows, width), np.int32)
        for n, (index, row, start) in enumerate(zip(indices_B, rows_B, starts_B, strict=True)):
            inside = slice(start, start + lengths_B[n])
            tokens_RT[row, inside] = prompts[index]
            segment_ids_RT[row, inside] = n + 1
            positions_RT[row, inside] = np.arange(lengths_B[n])
        first_BV = allowed and jnp.asarray([allowed(index) for index in indices_B])
        yield PromptBatch(
            jnp.asarray(tokens_RT),
            jnp.asarray(segment_ids_RT),
            jnp.asarray(positions_RT),
            jnp.asarray(rows_B, jnp.int32),
            jnp.asarray(starts_B, jnp.int32),
            jnp.asarray(lengths_B, jnp.int32),
            draw_keys(indices_B),
            first_BV,
        )


def _places(lengths_B: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and start of each prompt: long ones first, each in the first row with room."""
    rows_B, starts_B = np.zeros((2, len(lengths_B)), int)
    filled: list[int] = []
    for n in np.argsort(-lengths_B, kind="stable"):
        fits = (row for row, length in enumerate(filled) if length + lengths_B[n] <= width)
        row = next(fits, len(filled))
        if row == len(filled):
            filled.append(0)
        rows_B[n], starts_B[n] = row, filled[row]
        filled[row] += int(lengths_B[n])
    return rows_B, starts_B
