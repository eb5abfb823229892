"""Token embedding, and how it is looked up on several devices."""

import flax.linen as nn
import jax
from jax.sharding import NamedSharding, PartitionSpec

from cat_jax.models.precision import dot, take
from cat_jax.sharding import RULES
from cat_jax.types import Array
from pallas_kernels import Partition


def embed_init(key: Array, shape: tuple[int, ...], stddev: float = 0.02) -> Array:
    """Draw a table from the normal distribution around 0, the same inside a program and outside.

    Without the barrier XLA would join the factor to one of the draw, and round once less.
    """
    return jax.lax.optimization_barrier(jax.random.normal(key, shape)) * stddev


class Embedding(nn.Module):
    """Table of token embeddings, which may also be the output matrix.

    Attributes:
        vocab_size: V.
        width: D.
        dtype: Dtype of the results; the parameter "embedding" [V, D] is float32.
    """

    vocab_size: int
    width: int
    dtype: str = "float32"

    def setup(self):
        """Declare the table."""
        self.embedding = self.param("embedding", embed_init, (self.vocab_size, self.width))

    def __call__(self, tokens_BT: Array) -> Array:
        """Look up [B, T] token ids: [B, T, D]."""
        return take(self.embedding, tokens_BT, self.dtype)

    def attend(self, x_BTD: Array) -> Array:
        """Multiply by the table, transposed: [B, T, V]."""
        return dot(x_BTD, self.embedding, (1,), self.dtype)


def look_up(embed: Embedding, tokens_BT: Array, partition: Partition | None) -> Array:
    """Embed tokens on a mesh; where the width of the table is split, the activations move.

    The devices that share the width look up their slices of it for all of their tokens and
    exchange them (all-to-all); left to itself the partitioner gathers table and activations.
    """
    if partition is None:
        return embed(tokens_BT)
    positions = partition.sequence_axes
    by_rows = tuple(axis for axis in RULES["D"] if axis in partition.batch_axes)
    rows = tuple(axis for axis in partition.batch_axes if axis not in by_rows)
    x_BTD = embed(_constrain(tokens_BT, partition, rows))
    x_BTD = _constrain(x_BTD, partition, rows, (), by_rows + positions)
    # One axis after the other: of two exchanges at once the partitioner makes an all-gather.
    x_BTD = _constrain(x_BTD, partition, rows, positions, by_rows)
    return shard_activations(x_BTD, partition)


def shard_activations(x_BTD: Array, partition: Partition | None) -> Array:
    """Shard activations by sequences and positions, however the parameters are sharded."""
    if partition is None:
        return x_BTD
    return _constrain(x_BTD, partition, partition.batch_axes, partition.sequence_axes)


def _constrain(x: Array, partition: Partition, *axes: tuple[str, ...]) -> Array:
    sharding = NamedSharding(partition.mesh, PartitionSpec(*(names or None for names in axes)))
    return jax.lax.with_sharding_constraint(x, sharding)
