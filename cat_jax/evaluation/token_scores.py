"""How probable a model finds given tokens of given sequences, of any lengths, in few shapes.

Sequences of about one length are computed together, those that differ in their last token alone
are read once, and logits are computed for the tokens that count, a few at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax

from cat_jax.errors import InputError
from cat_jax.evaluation.prompt_batches import padded_length
from cat_jax.models import Aux, CausalLM
from cat_jax.sharding import replicate
from cat_jax.types import Array, Bool, Float, Int

MOST_TOKENS = 2**14
"""Tokens of a batch, padding included; so long sequences are computed fewer at a time."""

LOGITS_MIB = 64
"""Memory for the logits of a piece, in MiB of float32."""


@dataclass(frozen=True)
class TokenScores:
    """What a model says of some tokens of a sequence, each given all tokens before it.

    Attributes:
        log_probs: [K] float32, log-probability of each token in nats.
        likeliest: [K] bool, whether the model finds no token more probable.
    """

    log_probs: np.ndarray
    likeliest: np.ndarray

    @property
    def total(self) -> float:
        """Sum of the log-probabilities, in nats."""
        return float(self.log_probs.sum(dtype=np.float64))


class _Asked(NamedTuple):
    """Tokens to score, in rows of a batch; ``numbers`` are the sequences they belong to."""

    numbers: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def token_scores(
    model: CausalLM,
    params: Any,
    sequences: Sequence[Sequence[int] | np.ndarray],
    targets: Sequence[Sequence[int] | np.ndarray],
    *,
    batch_size: int = 64,
) -> Iterator[tuple[int, TokenScores]]:
    """Yield the scores of the target tokens of each sequence, as batches are done.

    Args:
        model: The model.
        params: Its parameters.
        sequences: Token ids; lengths may differ. What stands before a sequence's last target is
            read, so that it may be longer than the model's context by one.
        targets: Ascending indices of the tokens to score, from 1: nothing predicts a first token.
        batch_size: Most sequences that are computed at a time.

    Yields:
        Number of the sequence and its scores; the longest sequences come first.

    Raises:
        InputError: A size below one, a target that is not in its sequence, or an id outside the
            vocabulary.
    """
    ids = [np.asarray(sequence, np.int32) for sequence in sequences]
    wanted = [np.asarray(positions, np.int32) for positions in targets]
    _check(ids, wanted, model.config.vocab_size, batch_size)
    groups: dict[bytes, list[int]] = {}
    for n, (sequence, positions) in enumerate(zip(ids, wanted, strict=True)):
        if len(positions):
            groups.setdefault(sequence[: positions[-1]].tobytes(), []).append(n)
        else:
            yield n, TokenScores(np.zeros(0, np.float32), np.zeros(0, bool))
    order = sorted(groups, key=len, reverse=True)
    read = {key: np.frombuffer(key, np.int32) for key in order}
    while order:
        width = padded_length(len(read[order[0]]))
        rows = _rows(width, batch_size, len(order), model)
        chosen, order = order[:rows], order[rows:]
        tokens_BT = np.zeros((rows, width), np.int32)
        for row, key in zip(tokens_BT, chosen, strict=False):
            row[: len(read[key])] = read[key]
        members = [groups[key] for key in chosen]
        yield from _score(model, params, tokens_BT, _asked(members, ids, wanted))


def _check(
    ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], vocab_size: int, batch_size: int
) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    for n, (sequence, positions) in enumerate(zip(ids, wanted, strict=True)):
        if len(positions) and not 1 <= positions[0] <= positions[-1] < len(sequence):
            raise InputError(
                f"sequence {n} has targets from {positions[0]} to {positions[-1]}, but they can be "
                f"1 to {len(sequence) - 1} there"
            )
        if len(sequence) and not 0 <= sequence.min() <= sequence.max() < vocab_size:
            raise InputError(
                f"sequence {n} has ids from {sequence.min()} to {sequence.max()}, but the model "
                f"knows 0 to {vocab_size - 1}: use the tokenizer that belongs to it"
            )


def _rows(width: int, batch_size: int, left: int, model: CausalLM) -> int:
    """Return how many rows the next batch has: few sizes, and on a mesh whole shares of it."""
    rows = max(1, min(batch_size, MOST_TOKENS // width))
    rows = min(rows, 1 << (left - 1).bit_length())
    devices = 1 if model.partition is None else model.partition.mesh.size
    return rows + -rows % devices


def _asked(
    members: Sequence[Sequence[int]], ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> _Asked:
    """Return what is asked of rows; ``members`` are the sequences that each row is read for."""
    places = [(row, n) for row, numbers in enumerate(members) for n in numbers]
    sizes = [len(wanted[n]) for _, n in places]
    rows, numbers = (np.repeat(list(x), sizes) for x in zip(*places, strict=True))
    positions = np.concatenate([wanted[n] for _, n in places]) - 1
    labels = np.concatenate([ids[n][wanted[n]] for _, n in places])
    return _Asked(numbers, rows, positions, labels)


def _score(
    model: CausalLM, params: Any, tokens_BT: np.ndarray, asked: _Asked
) -> Iterator[tuple[int, TokenScores]]:
    hidden_BTD = _read(model, params, tokens_BT)
    most = 1 << max(0, ((LOGITS_MIB << 18) // model.config.vocab_size).bit_length() - 1)
    found = []
    for start in range(0, len(asked.labels), most):
        inside = slice(start, start + most)
        count = len(asked.labels[inside])
        size = 1 << (count - 1).bit_length()
        rows_K, positions_K, labels_K = (
            np.pad(x[inside], (0, size - count)).astype(np.int32)
            for x in (asked.rows, asked.positions, asked.labels)
        )
        hidden_KD = _take(hidden_BTD, rows_K, positions_K)
        found.append((count, _score_labels(model, params, hidden_KD, labels_K)))
    log_probs, likeliest = (
        np.concatenate([x[:count] for (count, _), x in zip(found, part, strict=True)])
        for part in zip(*jax.device_get([scores for _, scores in found]), strict=True)
    )
    starts = np.flatnonzero(np.diff(asked.numbers, prepend=-1))
    for start, stop in zip(starts, chain(starts[1:], [len(asked.numbers)]), strict=True):
        yield (
            int(asked.numbers[start]),
            TokenScores(log_probs[start:stop], likeliest[start:stop]),
        )


@partial(jax.jit, static_argnums=0)
def _read(model: CausalLM, params: Any, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Return the hidden states; padding on the right changes none before it."""
    output = model.apply({"params": params}, tokens_BT, method="hidden_states")
    hidden_BTD, _ = cast("tuple[Array, Aux]", output)
    return hidden_BTD


@jax.jit
def _take(hidden_BTD: Array, rows_K: Array, positions_K: Array) -> Float[Array, "K D"]:
    return hidden_BTD[rows_K, positions_K]


@partial(jax.jit, static_argnums=0)
def _score_labels(
    model: CausalLM, params: Any, hidden_KD: Array, labels_K: Int[Array, " K"]
) -> tuple[Float[Array, " K"], Bool[Array, " K"]]:
    logits_KV = cast("Array", model.apply({"params": params}, hidden_KD, method="logits"))
    log_K = -optax.softmax_cross_entropy_with_integer_labels(logits_KV, labels_K)
    found = log_K, logits_KV.argmax(-1) == labels_K
    log_K, likeliest_K = (replicate(x, model.partition) for x in found)
    return log_K, likeliest_K
