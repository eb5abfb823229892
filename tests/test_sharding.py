"""The table of axes, and what a mesh refuses; eight devices are in ``tests/train``."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora, param_shardings
from cat_jax.models.lora import KERNELS
from cat_jax.models.partitioning import AXES_OF
from cat_jax.sharding import MESH_AXES, RULES, MeshShape, make_mesh, process_indices, spec

CONFIG = ModelConfig(24, 16, 32, 3, 8, 4, 6, qkv_bias=True, qk_norm=True)


def test_specs_follow_the_table():
    assert spec("N D H C") == P(None, ("fsdp", "context"), "tensor", None)
    assert spec("V D") == P("tensor", ("fsdp", "context"))
    assert spec("N R F") == P(None, None, "tensor")


def test_two_axes_on_one_are_a_mistake():
    with pytest.raises(ValueError, match="the axes D H F would be split by tensor more than once"):
        spec("D H F")


def test_no_parameter_collides():
    for path, axes in AXES_OF.items():
        for axis in axes.split():
            assert set(RULES.get(axis, ())) <= set(MESH_AXES), path
        assert len(spec(axes)) == len(axes.split())


def test_every_parameter_and_adapter_has_its_axes():
    params = jax.eval_shape(CausalLM(CONFIG).init, jax.random.key(0), np.zeros((1, 1), int))
    lora = LoraConfig(rank=5, targets=tuple(KERNELS))
    adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), CONFIG, lora))
    mesh = AbstractMesh((1, 2, 2, 2), MESH_AXES)
    for tree in (params["params"], adapters):
        shardings = param_shardings(tree, mesh)
        assert jax.tree.structure(shardings) == jax.tree.structure(tree)
        for leaf, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True):
            assert len(sharding.spec) == leaf.ndim
    assert param_shardings(adapters, mesh)["layers"]["mlp"]["up"]["b"].spec == P(
        None, None, "tensor"
    )


def test_what_does_not_divide_is_refused():
    params = jax.eval_shape(CausalLM(CONFIG).init, jax.random.key(0), np.zeros((1, 1), int))
    for shape, message in (
        ((1, 1, 8, 1), r"mesh\.tensor is 8, which does not divide the 4 of .*key"),
        ((1, 3, 1, 4), r"fsdp x train\.mesh\.context is 12, which does not divide the 16 of "),
    ):
        with pytest.raises(InputError, match=message):
            param_shardings(params["params"], AbstractMesh(shape, MESH_AXES))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(data=2), "2 x 1 x 1 x 1 .* does not make 1 devices"),
        (MeshShape(context=2), r"any x 1 x 1 x 2 \(data, fsdp, tensor, context\).* 1 devices"),
        (MeshShape(fsdp=2), "any x 2 x 1 x 1 .* does not make 1 devices"),
    ],
)
def test_a_mesh_takes_all_devices(shape, message):
    with pytest.raises(InputError, match=message):
        make_mesh(shape, batch_size=4)


def test_a_mesh_axis_has_a_device():
    with pytest.raises(InputError, match=r"train\.mesh\.fsdp must be at least 1 .*, got 0"):
        MeshShape(fsdp=0)


class Device:
    """As much of a device as a mesh of other machines needs here."""

    platform = device_kind = "fake"

    def __init__(self, number, process):
        self.id, self.process_index = number, process


@given(
    shape=st.sampled_from(
        [(1, 1, 6, 1), (6, 1, 1, 1), (2, 1, 1, 3), (3, 2, 1, 1), (1, 3, 2, 1), (2, 2, 3, 2)]
    ),
    owners=st.data(),
    rows_each=st.integers(1, 3),
)
def test_processes_share_all_rows_however_devices_lie_in_the_mesh(shape, owners, rows_each):
    count = math.prod(shape)
    processes = owners.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    devices = np.array([Device(n, p) for n, p in enumerate(processes)], object).reshape(shape)
    mesh, shares = Mesh(devices, MESH_AXES), shape[0] * shape[1]
    held = {p: process_indices(mesh, shares * rows_each, p).tolist() for p in set(processes)}
    # Share n of the rows is needed wherever the mesh has a device at its place.
    for process, rows in held.items():
        needed = {
            n
            for n, group in enumerate(devices.reshape(shares, -1))
            if process in {device.process_index for device in group}
        }
        assert rows == sorted(n * rows_each + i for n in needed for i in range(rows_each))
    assert set().union(*held.values()) == set(range(shares * rows_each))


def test_processes_in_order_split_rows_without_overlap():
    devices = np.array([Device(n, n // 2) for n in range(8)], object)
    by_rows = Mesh(devices.reshape(4, 2, 1, 1), MESH_AXES)
    assert [process_indices(by_rows, 16, p).tolist() for p in range(4)] == [
        [*range(first, first + 4)] for first in (0, 4, 8, 12)
    ]
    across = Mesh(devices.reshape(2, 1, 2, 2), MESH_AXES)
    assert [process_indices(across, 4, p).tolist() for p in range(4)] == [
        [0, 1],
        [0, 1],
        [2, 3],
        [2, 3],
    ]
    dealt = Mesh(devices.reshape(4, 2).T.reshape(8, 1, 1, 1), MESH_AXES)
    assert process_indices(dealt, 16, 1).tolist() == [2, 3, 10, 11]
