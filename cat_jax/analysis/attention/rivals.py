"""Rival readings of attention maps: rollout, and attention weighted by gradients.

They combine maps into one number for each query and token, and stand beside the maps because
readers ask for them. None is a measurement of what the model uses: rollout follows attention
through layers as if values, output projections and feed-forward blocks were not there, and
gradients are local. Interventions measure it (docs/interventions.md).
"""

from dataclasses import replace

import numpy as np

from cat_jax.analysis.attention.named import AXES, AttentionMaps
from cat_jax.errors import InputError


def attention_rollout(maps: AttentionMaps) -> AttentionMaps:
    """Follow attention down through the layers (Abnar and Zuidema 2020, arXiv 2005.00928).

    Each layer is the mean of its heads, mixed half and half with the identity for the residual
    stream, its rows scaled to sum to 1; the rollout is their product, the last layer first.

    Args:
        maps: Maps of all queries, from ``read_attention``.

    Returns:
        Values [queries, keys]; each row sums to 1.

    Raises:
        InputError: Axes or queries are missing.
    """
    _check(maps)
    _check_attention(maps)
    identity = np.eye(len(maps.tokens))
    rolled = identity
    for layer_QK in np.asarray(maps, np.float64).mean(1):
        mixed_QK = 0.5 * (layer_QK + identity)
        rolled = mixed_QK / mixed_QK.sum(-1, keepdims=True) @ rolled
    return _flat(maps, rolled, "rollout")


def gradient_weighted(maps: AttentionMaps, gradients: AttentionMaps) -> AttentionMaps:
    """Return attention times its gradient, element by element.

    Where it is positive, more of this attention would make the answer more probable. Grad-SAM
    (Barkan et al. 2021, arXiv 2204.11073) drops what is negative.

    Args:
        maps: Maps, or rows of them, from ``read_attention``.
        gradients: From ``read_gradients``, of the same record and queries.

    Raises:
        InputError: They are of different texts, queries or views.
    """
    _check_pair(maps, gradients)
    view = (*maps.view, "attention x gradient")
    return replace(maps, values=maps.values * gradients.values, view=view)


def gradient_rollout(maps: AttentionMaps, gradients: AttentionMaps) -> AttentionMaps:
    """Follow attention weighted by gradients (Chefer et al. 2021, arXiv 2103.15679).

    From R = I, each layer adds E_h[max(attention x gradient, 0)] R.

    Args:
        maps: Maps of all queries, from ``read_attention``.
        gradients: From ``read_gradients``, of the same record.

    Returns:
        Relevance of every token to every query, [queries, keys].

    Raises:
        InputError: Axes or queries are missing, or the two are of different texts.
    """
    _check(maps)
    _check_pair(maps, gradients)
    relevance = np.eye(len(maps.tokens))
    products = np.asarray(maps, np.float64) * np.asarray(gradients, np.float64)
    for layer_QK in np.maximum(products, 0.0).mean(1):
        relevance = relevance + layer_QK @ relevance
    return _flat(maps, relevance, "gradient rollout")


def _flat(maps: AttentionMaps, values_QK: np.ndarray, view: str) -> AttentionMaps:
    values = values_QK.astype(np.float32)
    return replace(maps, values=values, axes=AXES[2:], view=(*maps.view, view))


def _check(maps: AttentionMaps) -> None:
    if maps.axes != AXES or len(maps.queries) != len(maps.tokens):
        raise InputError(
            f"maps of all layers, heads and queries are needed, got {maps!r} of "
            f"{len(maps.tokens)} tokens"
        )


def _check_attention(maps: AttentionMaps) -> None:
    if (maps.values < 0).any():
        raise InputError(f"{maps!r} has values below 0, which is no attention; give maps first")


def _check_pair(maps: AttentionMaps, gradients: AttentionMaps) -> None:
    _check_attention(maps)
    same = (maps.tokens, maps.view, maps.values.shape) == (
        gradients.tokens,
        gradients.view,
        gradients.values.shape,
    )
    if not same or not np.array_equal(maps.queries, gradients.queries):
        raise InputError(f"{maps!r} and {gradients!r} are not of the same text, queries and view")
