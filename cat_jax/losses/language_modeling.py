"""Next-token cross entropy on the answer."""

import jax
import jax.numpy as jnp
import optax

from cat_jax.types import Array, Bool, Float, Int


def next_token_loss(
    logits_BTV: Float[Array, "B T V"],
    tokens_BT: Int[Array, "B T"],
    target_mask_BT: Bool[Array, "B T"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean cross entropy over the answer's tokens, each predicted from the row before it.

    Args:
        logits_BTV: logits of the next token at every position, float32.
        tokens_BT: token ids.
        target_mask_BT: True at the tokens to be predicted; the prompt is False.

    Returns:
        The scalar loss (0 when nothing is to be predicted) and the metric ``token_accuracy``.
    """
    logits_BTV, labels_BT, counted_BT = logits_BTV[:, :-1], tokens_BT[:, 1:], target_mask_BT[:, 1:]
    loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, labels_BT)
    count = jnp.maximum(counted_BT.sum(), 1)
    hits_BT = jax.lax.stop_gradient(logits_BTV).argmax(-1) == labels_BT
    accuracy = jnp.where(counted_BT, hits_BT, 0).sum() / count
    return jnp.where(counted_BT, loss_BT, 0.0).sum() / count, {"token_accuracy": accuracy}
