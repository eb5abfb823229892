"""Attention in eight bits a value.

Code c stands for (c / 255)^2. Most attention is small: a value p is off by at most
sqrt(p) / 255 + 1 / 510^2, which near 1 is twice what evenly spaced codes are off by, and at 1/2048
a twentieth of it, where those know 0 and 1/255 alone.
"""

import base64

import numpy as np

from cat_jax.types import Float

LARGEST_ERROR = 509.5 / (2 * 255**2)
"""Largest error of any value: 0.0039, halfway between the two largest codes."""


def encode(values: Float[np.ndarray, "..."]) -> np.ndarray:
    """Return the codes, uint8, of values from 0 to 1."""
    return np.rint(255 * np.sqrt(values)).astype(np.uint8)


def pool(codes_QK: np.ndarray, bins: tuple[int, int]) -> np.ndarray:
    """Return the largest code of each block.

    Args:
        codes_QK: Codes [Q, K].
        bins: Blocks of queries and of keys; block i of b holds the indices from floor(i n / b) to
            floor((i + 1) n / b) - 1 of n.
    """
    for axis, count in enumerate(bins):
        starts = np.arange(count) * codes_QK.shape[axis] // count
        codes_QK = np.maximum.reduceat(codes_QK, starts, axis=axis)
    return codes_QK


def text_of(codes: np.ndarray) -> str:
    """Return codes as base64."""
    return base64.b64encode(codes.tobytes()).decode()


def text_bytes(count: int) -> int:
    """Return the size of so many codes on a page: as base64, with the end of the line."""
    return 4 * -(-count // 3) + 1
