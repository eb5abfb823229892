"""A kernel on every device of a mesh: rows and heads are split, positions are whole.

The partitioner of XLA cannot look into a kernel, so the split is spelled out with ``shard_map``.
It wraps forward and backward each, inside the one ``custom_vjp``: around it, JAX would sum the
gradients over the whole mesh once more. No device needs anything of another.
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
    """Which axes of a mesh split the rows of the batch, the heads, and the positions.

    Attributes:
        mesh: of devices.
        batch_axes: axes that split B.
        head_axes: axes that split H, and G as far as it divides: beyond it, keys and values are
            repeated.
        sequence_axes: axes that split Q and K around the attention. In it they split heads
            instead, after ``head_axes``: its devices exchange positions for heads, before and
            after, and each attends over whole rows (DeepSpeed-Ulysses, Jacobs et al. 2023).
    """

    mesh: Mesh
    batch_axes: tuple[str, ...] = ()
    head_axes: tuple[str, ...] = ()
    sequence_axes: tuple[str, ...] = ()

    @property
    def attended(self) -> tuple[str, ...]:
        """The axes that split heads inside the attention."""
        return self.head_axes + self.sequence_axes

    def repeats(self, batch: int, heads: int, groups: int) -> int:
        """How often to repeat each key/value head, so that a query head is where its keys are.

        Raises:
            ValueError: rows or query heads do not divide among the devices.
        """
        for name, size, axes in (
            ("rows", batch, self.batch_axes),
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
        """An array as it is around the attention; left to itself XLA would gather it there."""
        split = P(self.batch_axes or None, self.sequence_axes, P.UNCONSTRAINED)
        return self._split(x_BTHC, split)

    def by_heads(self, x_BTHC: Array) -> Array:
        """An array as it is in the attention; what is kept for the backward pass lies so, too."""
        return self._split(x_BTHC, P(self.batch_axes or None, None, self.attended))

    def _split(self, x_BTHC: Array, split: P) -> Array:
        if not self.sequence_axes:
            return x_BTHC
        return jax.lax.with_sharding_constraint(x_BTHC, NamedSharding(self.mesh, split))

    def devices(self, axes: tuple[str, ...]) -> int:
        """How many devices lie along some axes."""
        return math.prod(self.mesh.shape[axis] for axis in axes)


@functools.lru_cache
def sharded(kernel: Kernel, partition: Partition) -> Kernel:
    """The same kernel on each device's rows and heads; equal arguments give the same object."""

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
    """Where the inputs lie, arrays like the queries, and statistics [B, H, Q]."""
    rows, heads = partition.batch_axes or None, partition.attended or None
    values, by_row = P(rows, None, heads), P(rows)
    return (values, values, values, by_row, by_row, by_row), values, P(rows, heads)


def shard_mapped(
    partition: Partition, function: Callable[..., Any], arguments, in_specs, out_specs
):
    """Run ``function`` on every device's share; an argument that is None stays it."""
    given = tuple(None if x is None else spec for spec, x in zip(in_specs, arguments, strict=True))
    return jax.shard_map(
        function, mesh=partition.mesh, in_specs=given, out_specs=out_specs, check_vma=False
    )(*arguments)
