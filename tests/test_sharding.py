"""The table of axes, and what a mesh refuses; eight devices are in ``tests/train``."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from cat_jax.errors import InputError
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora, param_shardings
from cat_jax.models.lora import KERNELS
from cat_jax.models.partitioning import AXES_OF
from cat_jax.sharding import AXES, MeshShape, make_mesh, spec

CONFIG = ModelConfig(24, 16, 32, 3, 8, 4, 6, qkv_bias=True, qk_norm=True)


def test_specs_follow_the_table():
    assert spec("N D H C") == P(None, "fsdp", "tensor", None)
    assert spec("V D") == P("tensor", "fsdp")
    assert spec("N R F") == P(None, None, "tensor")


def test_two_axes_on_one_are_a_mistake():
    with pytest.raises(ValueError, match="the axes D H F would be split by tensor more than once"):
        spec("D H F")


def test_no_parameter_collides():
    for path, axes in AXES_OF.items():
        assert set(spec(axes)) - {None} <= set(AXES), path


def test_every_parameter_and_adapter_has_its_axes():
    params = jax.eval_shape(CausalLM(CONFIG).init, jax.random.key(0), np.zeros((1, 1), int))
    lora = LoraConfig(rank=5, targets=tuple(KERNELS))
    adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), CONFIG, lora))
    mesh = AbstractMesh((1, 4, 2), AXES)
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
    mesh = AbstractMesh((1, 1, 8), AXES)
    with pytest.raises(InputError, match=r"tensor is 8, which does not divide the 4 of .*key"):
        param_shardings(params["params"], mesh)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(data=2), "2 x 1 x 1 .* does not make 1 devices"),
        (MeshShape(fsdp=2), "any x 2 x 1 .* does not make 1 devices"),
    ],
)
def test_a_mesh_takes_all_devices(shape, message):
    with pytest.raises(InputError, match=message):
        make_mesh(shape, batch_size=4)


def test_a_mesh_axis_has_a_device():
    with pytest.raises(InputError, match=r"train\.mesh\.fsdp must be at least 1, got 0"):
        MeshShape(fsdp=0)
