"""Next-token cross entropy on the target tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cat_jax.losses.mean import Mean, mean_where, sum_means
from cat_jax.types import Array, Bool, Float, Int


@dataclass(frozen=True)
class LogitBudget:
    """Which logits a device computes, and how many at a time.

    Attributes:
        tokens: Tokens whose logits are in memory at a time, over all sequences; None computes them
            all at once.
        targets: No sequence has more target tokens than this, and logits are computed for as many
            positions of each; None computes them for all positions.
    """

    tokens: int | None = None
    targets: int | None = None


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


def budgeted_next_token_sums(
    unembed: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    labels_BT: Int[Array, "B T"],
    counted_BT: Bool[Array, "B T"],
    budget: LogitBudget,
) -> NextTokenSums:
    """Compute ``next_token_loss`` up to the division, without all logits in memory.

    The hidden states of target positions are gathered, as many of each sequence as the budget says,
    and projected a piece at a time; in the backward pass the logits of a piece are computed again.

    Args:
        unembed: Function from hidden states [..., D] to logits [..., V], float32.
        hidden_BTD: Hidden states.
        labels_BT: Token after each position, from ``next_tokens``.
        counted_BT: Whether that token is a target, from ``next_tokens``.
        budget: Which logits are computed, and how many at a time.
    """
    chosen = hidden_BTD, labels_BT, counted_BT
    if budget.targets is not None and budget.targets < hidden_BTD.shape[1]:
        chosen = gather_targets(*chosen, budget.targets)
    flat = [x.reshape(-1, *x.shape[2:]) for x in chosen]
    tokens = len(flat[0])
    if budget.tokens is None or tokens <= budget.tokens:
        return _sums(unembed, *flat)
    # A loop keeps XLA from undoing the recomputation.
    body = jax.checkpoint(partial(_sums, unembed), prevent_cse=False)
    pieces = tuple(_pieces(x, -(-tokens // budget.tokens)) for x in flat)
    return sum_means(jax.lax.map(lambda one: body(*one), pieces))


def gather_targets(
    hidden_BTD: Array, labels_BT: Array, counted_BT: Array, most: int
) -> tuple[Array, Array, Array]:
    """Return ``most`` positions of each sequence, those of targets before all others.

    Args:
        hidden_BTD: Hidden states.
        labels_BT: Token after each position.
        counted_BT: Whether that token is a target.
        most: Positions to return; at least as many as any sequence has targets.

    Returns:
        The same of the chosen positions, [B, most, D] and [B, most].
    """
    order_BK = jnp.argsort(~counted_BT, axis=1, stable=True)[:, :most]
    labels_BK, counted_BK = (
        jnp.take_along_axis(x, order_BK, axis=1) for x in (labels_BT, counted_BT)
    )
    return jnp.take_along_axis(hidden_BTD, order_BK[..., None], axis=1), labels_BK, counted_BK


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
    unembed: Callable[[Array], Array], hidden_ND: Array, labels_N: Array, counted_N: Array
) -> NextTokenSums:
    logits_NV = unembed(hidden_ND)
    loss_N = optax.softmax_cross_entropy_with_integer_labels(logits_NV, labels_N)
    hits_N = jax.lax.stop_gradient(logits_NV).argmax(-1) == labels_N
    return NextTokenSums(mean_where(counted_N, loss_N), mean_where(counted_N, hits_N))


def _pieces(x_N: Array, count: int) -> Array:
    """Cut [N, ...] into ``count`` pieces, padded with zeros, which are not counted."""
    N, *rest = x_N.shape
    x_N = jnp.pad(x_N, [(0, -N % count)] + [(0, 0)] * len(rest))
    return x_N.reshape(count, -1, *rest)
