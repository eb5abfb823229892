"""The real TPU compiler on a machine without a TPU."""

import functools
import math
import os

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOPOLOGIES = {"v5e": "v5e:4x4", "v5p": "v5p:2x2x2", "v6e": "v6e:4x4"}


@functools.cache
def chips(generation: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Mesh:
    """A mesh to compile for: the first chips of a small slice."""
    require_compiler()
    # Read when the plugin is loaded: no metadata server is asked, and other processes may load it.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[generation])
    return Mesh(np.array(topology.devices[: math.prod(shape)]).reshape(shape), axes)


def require_compiler() -> None:
    """Skip without libtpu; fail in CI."""
    try:
        import libtpu  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI=true, but libtpu is not installed: make test EXTRAS=test,compilers")
        pytest.skip("libtpu is not installed: make test EXTRAS=test,compilers")


def compile_for(generation: str, function, *shapes):
    """Compile for one chip of the generation."""
    place = NamedSharding(chips(generation, (1,), ("x",)), PartitionSpec())
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for x in shapes]
    return jax.jit(function).lower(*shapes).compile()
