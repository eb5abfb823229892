"""Means that are divided last, so that those of the parts of a batch add up to those of it all."""

import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.types import Array


@struct.dataclass
class Mean:
    """A sum and how many it is of; pytrees of means add up leaf by leaf.

    Attributes:
        total: float32 scalar.
        count: int32 scalar.
    """

    total: Array
    count: Array

    @property
    def value(self) -> Array:
        """The mean, 0 of nothing."""
        return self.total / jnp.maximum(self.count, 1)


def mean_where(counted: Array, x: Array) -> Mean:
    """The mean of the counted entries; the leading axes that ``counted`` lacks are averaged."""
    repeats = x.size // counted.size
    total = jnp.where(jnp.broadcast_to(counted, x.shape), x, 0.0).sum()
    return Mean(total / repeats, counted.sum())


def sum_means(stacked):
    """Adds up a pytree of means that is stacked along a leading axis."""
    return jax.tree.map(lambda x: x.sum(0), stacked)
