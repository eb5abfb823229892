"""Next-token cross entropy on the target tokens."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cat_jax.losses.mean import Mean, mean_where, sum_means
from cat_jax.types import Array, Bool, Float, Int


class NextTokenSums(NamedTuple):
    """Undivided loss and accuracy over the target tokens.

    Attributes:
        loss: Cross entropy in nats.
        accuracy: Whether the most likely token is the target.
    """

    loss: Mean
    accuracy: Mean


def next_token_loss(
    logits_BTV: Float[Array, "B T V"],
    tokens_BT: Int[Array, "B T"],
    target_mask_BT: Bool[Array, "B T"],
    segment_ids_BT: Int[Array, "B T"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the mean cross entropy of the target tokens, each predicted one position before.

    Args:
        logits_BTV: Logits of the next token at every position, float32.
        tokens_BT: Token ids, int32.
        target_mask_BT: True at the tokens to predict; False in the prompt.
        segment_ids_BT: Record of each position of packed sequences, int32; the first token of a
            segment is never predicted.

    Returns:
        The scalar loss (0 without target tokens) and the metric ``token_accuracy``.
    """
    labels_BT, counted_BT = next_tokens(tokens_BT, target_mask_BT, segment_ids_BT)
    sums = _sums(lambda logits: logits, logits_BTV, labels_BT, counted_BT)
    return sums.loss.value, {"token_accuracy": sums.accuracy.value}


def chunked_next_token_sums(
    unembed: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    labels_BT: Int[Array, "B T"],
    counted_BT: Bool[Array, "B T"],
    *,
    chunk: int,
) -> NextTokenSums:
    """Compute ``next_token_loss`` up to the division, without all logits in memory.

    The logits of ``chunk`` positions of every sequence are computed at a time, and again in the
    backward pass. The axis of positions is cut because that of sequences may be sharded.

    Args:
        unembed: Function from hidden states [B, chunk, D] to logits [B, chunk, V], float32.
        hidden_BTD: Hidden states.
        labels_BT: Token after each position, from ``next_tokens``.
        counted_BT: Whether that token is a target, from ``next_tokens``.
        chunk: Positions of each sequence whose logits are in memory at a time.
    """
    length = hidden_BTD.shape[1]
    if length <= chunk:
        return _sums(unembed, hidden_BTD, labels_BT, counted_BT)
    # A loop keeps XLA from undoing the recomputation.
    body = jax.checkpoint(partial(_sums, unembed), prevent_cse=False)
    chunks = tuple(_chunks(x, chunk) for x in (hidden_BTD, labels_BT, counted_BT))
    return sum_means(jax.lax.map(lambda one: body(*one), chunks))


def next_tokens(
    tokens_BT: Array, target_mask_BT: Array, segment_ids_BT: Array | None = None
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Return the token after each position, int32, and whether it is a target.

    Args:
        tokens_BT: Token ids, int32.
        target_mask_BT: True at the tokens to predict.
        segment_ids_BT: Record of each position of packed sequences, int32.
    """
    counted_BT = target_mask_BT[:, 1:]
    if segment_ids_BT is not None:
        counted_BT = counted_BT & (segment_ids_BT[:, 1:] == segment_ids_BT[:, :-1])
    # The last position predicts nothing.
    labels_BT, counted_BT = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens_BT[:, 1:], counted_BT))
    return labels_BT, counted_BT


def _sums(
    unembed: Callable[[Array], Array], hidden_BTD: Array, labels_BT: Array, counted_BT: Array
) -> NextTokenSums:
    logits_BTV = unembed(hidden_BTD)
    loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, labels_BT)
    hits_BT = jax.lax.stop_gradient(logits_BTV).argmax(-1) == labels_BT
    return NextTokenSums(mean_where(counted_BT, loss_BT), mean_where(counted_BT, hits_BT))


def _chunks(x_BT: Array, chunk: int) -> Array:
    """Cut [B, T, ...] into [chunks, B, chunk, ...], padded with zeros, which are not counted."""
    B, T, *rest = x_BT.shape
    x_BT = jnp.pad(x_BT, [(0, 0), (0, -T % chunk)] + [(0, 0)] * len(rest))
    return x_BT.reshape(B, -1, chunk, *rest).swapaxes(0, 1)
