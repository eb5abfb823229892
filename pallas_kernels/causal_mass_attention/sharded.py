"""A kernel on every device of a mesh: sequences and heads are split, positions are whole.

XLA's partitioner cannot look into a kernel, so the split is written out with ``shard_map``. It
wraps forward and backward separately, inside the one ``custom_vjp``: around it, JAX would sum the
gradients over the whole mesh once more. No device needs data of another.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel


@dataclass(frozen=True)
class Partition:
    """Axes of a mesh that split sequences of a batch, heads, and positions.

    Attributes:
        mesh: Mesh of devices.
        batch_axes: Axes that split B.
        head_axes: Axes that split H, and G as far as it divides; beyond that, keys and values are
            repeated.
        sequence_axes: Axes that split Q and K outside the attention. Inside it they split heads,
            after ``head_axes``: devices exchange positions for heads before it and back after it,
            and each attends over whole sequences (DeepSpeed-Ulysses, Jacobs et al. 2023).
    """

    mesh: Mesh
    batch_axes: tuple[str, ...] = ()
    head_axes: tuple[str, ...] = ()
    sequence_axes: tuple[str, ...] = ()

    @property
    def attended(self) -> tuple[str, ...]:
        """Axes that split heads inside the attention."""
        return self.head_axes + self.sequence_axes

    def repeats(self, batch: int, heads: int, groups: int) -> int:
        """Return how often to repeat each key/value head, so that every query head has its keys.

        Raises:
            ValueError: Sequences or query heads do not divide among the devices.
        """
        for name, size, axes in (
            ("sequences", batch, self.batch_axes),
            ("query heads", heads, self.attended),
        ):
            devices = self.devices(axes)
            if size % devices:
                raise ValueError(
                    f"{size} {name} do not divide among the {devices} devices of mesh axes "
                    f"{', '.join(axes)}"
                )
        return math.lcm(groups, self.devices(self.attended)) // groups

    def by_positions(self, x_BTHC: Array) -> Array:
        """Split an array as it is outside the attention, where XLA would else gather it."""
        split = P(self.batch_axes or None, self.sequence_axes, P.UNCONSTRAINED)
        return self._split(x_BTHC, split)

    def by_heads(self, x_BTHC: Array) -> Array:
        """Split an array as it is inside the attention, residuals of the backward included."""
        return self._split(x_BTHC, P(self.batch_axes or None, None, self.attended))

    def _split(self, x_BTHC: Array, split: P) -> Array:
        if not self.sequence_axes:
            return x_BTHC
        return jax.lax.with_sharding_constraint(x_BTHC, NamedSharding(self.mesh, split))

    def devices(self, axes: tuple[str, ...]) -> int:
        """Return how many devices lie along some axes."""
        return math.prod(self.mesh.shape[axis] for axis in axes)


@functools.lru_cache
def sharded(kernel: Kernel, partition: Partition) -> Kernel:
    """Return the kernel that runs on each device's share; equal arguments give the same object."""

    def forward(given: Inputs, scale: float):
        inputs, values, statistic = specs(partition)
        mass = None if given.q_bits is None else statistic
        return shard_mapped(
            partition,
            lambda *shard: kernel.forward(Inputs(*shard), scale),
            given,
            inputs,
            (values, mass, statistic),
        )

    def backward(given: Inputs, scale: float, out, mass, lse, d_out, d_mass):
        inputs, values, statistic = specs(partition)
        count = len(given)
        return shard_mapped(
            partition,
            lambda *shard: kernel.backward(Inputs(*shard[:count]), scale, *shard[count:]),
            (*given, out, mass, lse, d_out, d_mass),
            (*inputs, values, statistic, statistic, values, statistic),
            (values, values, values),
        )

    return Kernel(forward, backward)


def specs(partition: Partition) -> tuple[tuple[P, ...], P, P]:
    """Return the specs of the inputs, of arrays like the queries, and of statistics [B, H, Q]."""
    batch, heads = partition.batch_axes or None, partition.attended or None
    values, tags = P(batch, None, heads), P(batch)
    return (values, values, values, tags, tags, tags), values, P(batch, heads)


def shard_mapped(
    partition: Partition, function: Callable[..., Any], arguments, in_specs, out_specs
):
    """Run ``function`` on every device's share; arguments that are None stay None."""
    given = tuple(None if x is None else spec for spec, x in zip(in_specs, arguments, strict=True))
    return jax.shard_map(
        function, mesh=partition.mesh, in_specs=given, out_specs=out_specs, check_vma=False
    )(*arguments)
