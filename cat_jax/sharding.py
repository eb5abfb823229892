"""Where arrays live: one mesh axis, ``data``, over all devices; one device is the same code."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cat_jax.errors import InputError


def data_mesh(batch_size: int, accumulate: int = 1) -> Mesh:
    """A mesh of all devices along ``data``.

    Raises:
        InputError: the batch, or each of its ``accumulate`` parts, does not divide among the
            devices.
    """
    devices = jax.devices()
    if batch_size % (len(devices) * accumulate):
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise InputError(
            f"train.batch_size is {batch_size}, which {len(devices)} devices cannot share evenly"
            f"{parts}; choose a multiple of {len(devices) * accumulate}"
        )
    return Mesh(np.array(devices), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
    """Every device holds its share of the leading (batch) axis."""
    return NamedSharding(mesh, PartitionSpec("data"))
