"""Next-token cross entropy on the answer."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cat_jax.losses.mean import Mean, mean_where, sum_means
from cat_jax.types import Array, Bool, Float, Int


class NextTokenSums(NamedTuple):
    """The cross entropy and the share of right guesses, over the tokens to be predicted."""

    loss: Mean
    accuracy: Mean


def next_token_loss(
    logits_BTV: Float[Array, "B T V"],
    tokens_BT: Int[Array, "B T"],
    target_mask_BT: Bool[Array, "B T"],
    segment_ids_BT: Int[Array, "B T"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean cross entropy over the answer's tokens, each predicted from the row before it.

    Args:
        logits_BTV: logits of the next token at every position, float32.
        tokens_BT: token ids.
        target_mask_BT: True at the tokens to be predicted; the prompt is False.
        segment_ids_BT: of packed rows; nothing predicts the first token of a segment.

    Returns:
        The scalar loss (0 when nothing is to be predicted) and the metric ``token_accuracy``.
    """
    labels_BT, counted_BT = next_tokens(tokens_BT, target_mask_BT, segment_ids_BT)
    terms = _terms(lambda logits: logits, logits_BTV, labels_BT, counted_BT)
    return terms.loss.value, {"token_accuracy": terms.accuracy.value}


def chunked_next_token_sums(
    unembed: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    labels_BT: Int[Array, "B T"],
    counted_BT: Bool[Array, "B T"],
    *,
    chunk: int,
) -> NextTokenSums:
    """The terms of ``next_token_loss`` without the logits of all positions in memory.

    The logits of ``chunk`` positions of every row are computed at a time, and again in the
    backward pass. Positions are cut and not rows, which may lie on several devices.

    Args:
        unembed: from some positions of the hidden states to their logits [B, chunk, V], float32.
        hidden_BTD: what it makes logits of.
        labels_BT: from ``next_tokens``, as the next.
        counted_BT: which positions predict a token of the answer.
        chunk: T or more computes all logits at once.
    """
    length = hidden_BTD.shape[1]
    if length <= chunk:
        return _terms(unembed, hidden_BTD, labels_BT, counted_BT)
    # A loop keeps XLA from undoing the recomputation.
    body = jax.checkpoint(partial(_terms, unembed), prevent_cse=False)
    pieces = (_pieces(x, chunk) for x in (hidden_BTD, labels_BT, counted_BT))
    return sum_means(jax.lax.map(lambda piece: body(*piece), tuple(pieces)))


def next_tokens(
    tokens_BT: Array, target_mask_BT: Array, segment_ids_BT: Array | None = None
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """The token after each position, and whether it is to be predicted from that position."""
    counted_BT = target_mask_BT[:, 1:]
    if segment_ids_BT is not None:
        counted_BT = counted_BT & (segment_ids_BT[:, 1:] == segment_ids_BT[:, :-1])
    # Nothing stands after the last position: its label is never counted.
    labels_BT, counted_BT = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens_BT[:, 1:], counted_BT))
    return labels_BT, counted_BT


def _terms(
    unembed: Callable[[Array], Array], hidden_BTD: Array, labels_BT: Array, counted_BT: Array
) -> NextTokenSums:
    logits_BTV = unembed(hidden_BTD)
    loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, labels_BT)
    hits_BT = jax.lax.stop_gradient(logits_BTV).argmax(-1) == labels_BT
    return NextTokenSums(mean_where(counted_BT, loss_BT), mean_where(counted_BT, hits_BT))


def _pieces(x_BT: Array, chunk: int) -> Array:
    """Cuts [B, T, ...] into [pieces, B, chunk, ...], padded with zeros, which do not count."""
    B, T, *rest = x_BT.shape
    x_BT = jnp.pad(x_BT, [(0, 0), (0, -T % chunk)] + [(0, 0)] * len(rest))
    return x_BT.reshape(B, -1, chunk, *rest).swapaxes(0, 1)
