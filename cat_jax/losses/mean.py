"""Means that are divided last, so that the means of a batch's parts add up to its own."""

import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.types import Array


@struct.dataclass
class Mean:
    """A mean before its division; pytrees of means add up leaf by leaf.

    Attributes:
        total: Sum of the values, float32 scalar.
        count: Number of values, int32 scalar.
    """

    total: Array
    count: Array

    @property
    def value(self) -> Array:
        """Return the mean, 0 where there are no values."""
        return self.total / jnp.maximum(self.count, 1)


def mean_where(counted: Array, x: Array) -> Mean:
    """Return the mean of ``x`` where ``counted``, also over leading axes that ``counted`` lacks."""
    repeats = x.size // counted.size
    total = jnp.where(jnp.broadcast_to(counted, x.shape), x, 0.0).sum()
    return Mean(total / repeats, counted.sum())


def sum_means(stacked):
    """Add up a pytree of means that is stacked along a leading axis."""
    return jax.tree.map(lambda x: x.sum(0), stacked)
