"""Sharding: a mesh of four axes, and one table from array axes to mesh axes.

``data`` splits the sequences of a batch among replicas of the model. ``fsdp`` splits them too, and
the parameters, gradients and optimizer state as well: each layer is gathered when it is computed
(ZeRO, Rajbhandari et al. 2020). ``tensor`` splits heads, hidden units and vocabulary inside every
layer (Megatron-LM, Shoeybi et al. 2019). ``context`` splits the positions of long sequences, and
heads instead inside the attention (DeepSpeed-Ulysses, Jacobs et al. 2023); it shares the parameters
as ``fsdp`` does. One device is a mesh of 1 x 1 x 1 x 1, and the same code.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cat_jax.config import MESH_AXES, MeshShape
from cat_jax.errors import InputError
from pallas_kernels import Partition

T = TypeVar("T")

BATCH_AXES = ("data", "fsdp")
"""Mesh axes that split the sequences of a batch."""
HEAD_AXES = ("tensor",)
"""Mesh axes that split heads."""
SEQUENCE_AXES = ("context",)
"""Mesh axes that split the positions of a sequence."""
RULES = {
    "D": ("fsdp", "context"),
    "F": ("tensor",),
    "G": ("tensor",),
    "H": ("tensor",),
    "V": ("tensor",),
}
"""Mesh axes that split each parameter axis (letters of ``cat_jax.types``); others are whole."""


def make_mesh(
    shape: MeshShape, batch_size: int, accumulate: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """Return a mesh of all devices, or of those given.

    Raises:
        InputError: the shape does not take all devices, or the batch, or each of its
            ``accumulate`` parts, does not divide among them.
    """
    chosen = jax.devices() if devices is None else devices
    count = len(chosen)
    inner = shape.fsdp * shape.tensor * shape.context
    data = count // inner if shape.data is None else shape.data
    if data * inner != count:
        raise InputError(f"train.mesh is {shape}, which does not make {count} devices")
    shares = data * shape.fsdp
    if batch_size % (shares * accumulate):
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise InputError(
            f"train.batch_size is {batch_size}, which {shares} devices (data x fsdp) cannot share "
            f"evenly{parts}; choose a multiple of {shares * accumulate}"
        )
    # Without splits, 8 x 2 is refused on a square of 4 x 4 chips.
    grid = mesh_utils.create_device_mesh(
        (data, shape.fsdp, shape.tensor, shape.context), chosen, allow_split_physical_axes=True
    )
    return Mesh(grid, MESH_AXES)


def spec(axes: str) -> PartitionSpec:
    """Return how ``RULES`` split a parameter with these axes, such as ``"N D H C"``.

    Raises:
        ValueError: two axes would be split by the same axis of the mesh.
    """
    split = [RULES.get(axis) for axis in axes.split()]
    twice = [name for name, count in Counter(chain(*filter(None, split))).items() if count > 1]
    if twice:
        raise ValueError(f"the axes {axes} would be split by {', '.join(twice)} more than once")
    return PartitionSpec(*split)


def check_divides(mesh: Mesh, name: str, shape: tuple[int, ...], axes: str) -> None:
    """Raise InputError unless every axis of a parameter divides among the devices that split it."""
    for size, axis in zip(shape, axes.split(), strict=True):
        split = tuple(along for along in RULES.get(axis, ()) if mesh.shape[along] > 1)
        devices = Partition(mesh).devices(split)
        if size % devices:
            given = " x ".join(f"train.mesh.{along}" for along in split)
            raise InputError(
                f"{given} is {devices}, which does not divide the {size} of "
                f"{name} {list(shape)}; choose a divisor"
            )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding in which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding in which every device holds its share of the leading (batch) axis."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def process_indices(mesh: Mesh, batch_size: int, process: int | None = None) -> np.ndarray:
    """Return which sequences of a batch lie on the devices of a process, ascending.

    Processes that share the rest of the mesh (``tensor``, ``context``) hold the same sequences; the
    order of devices in the mesh decides which. The process is this one by default.
    """
    process = jax.process_index() if process is None else process
    indices = batch_sharding(mesh).devices_indices_map((batch_size,))
    held = np.zeros(batch_size, bool)
    for device, index in indices.items():
        if device.process_index == process:
            held[index] = True
    return np.flatnonzero(held)


def shard_batch(batch: T, mesh: Mesh) -> T:
    """Put a batch on the mesh, split by sequences; each process gives its ``process_indices``."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # all at once: several times as fast
    shares = Partition(mesh).devices(BATCH_AXES)
    own = len(process_indices(mesh, shares))

    def put(x: np.ndarray) -> jax.Array:
        shape = (len(x) // own * shares, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(put, batch)


def replicate(array: jax.Array, partition: Partition | None) -> jax.Array:
    """Replicate a result inside a compiled function, so that every process can read it."""
    if partition is None:
        return array
    return jax.lax.with_sharding_constraint(array, replicated(partition.mesh))


def to_host(array: jax.Array | np.ndarray) -> np.ndarray:
    """Return an array's values, gathered from all processes, which must all call it."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
