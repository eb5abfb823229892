import sys

import pytest

from cat_jax.config import MeshShape
from cat_jax.errors import InputError
from cat_jax.sharding import make_mesh
from experiments.planning.slices import CHIPS, SLICES, devices_of, find_slice


@pytest.mark.parametrize(
    ("name", "chips", "grid"),
    [
        ("v5e-16", 16, (4, 4)),
        ("v5e-256", 256, (16, 16)),
        ("v5p-64", 32, (2, 4, 4)),
        ("v5p-1024", 512, (8, 8, 8)),
        ("v6e-256", 256, (16, 16)),
    ],
)
def test_names_count_chips_or_cores(name, chips, grid):
    found = find_slice(name)
    assert (found.chips, found.grid) == (chips, grid)
    assert found.name == name
    assert f"{chips} chips" in str(found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5e-12", "choose from v5e-4, v5e-8, v5e-16"),
        ("v5p-12", "v5p-64, v5p-128, v5p-256, v5p-512, v5p-1024 (v5p counts TensorCores"),
        ("h100-8", "v6e-256"),
    ],
)
def test_an_unknown_slice_names_those_there_are(name, said):
    with pytest.raises(InputError) as caught:
        find_slice(name)
    assert f"no topology named '{name}'" in str(caught.value)
    assert said in str(caught.value)


def test_clocks_are_those_of_the_peak():
    """Matrix units of 128 x 128, a product and a sum each: 4 on v5e, 8 on v5p."""
    for name, units in (("v5e", 4), ("v5p", 8)):
        assert CHIPS[name].clock * units * 2 * 128**2 == pytest.approx(CHIPS[name].flops, rel=0.01)


def test_without_the_compiler_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[compilers\]'"):
        devices_of(find_slice("v5e-16"))


@pytest.mark.parametrize("name", SLICES)
def test_the_compiler_knows_every_slice_and_every_mesh_on_it(name, tpu_compiler):
    slice_ = find_slice(name)
    devices = devices_of(slice_)
    assert len(devices) == len(set(devices)) == slice_.chips
    for fsdp in (1, 2, slice_.chips // 2):
        mesh = make_mesh(MeshShape(None, fsdp, 2), slice_.chips, devices=devices)
        assert mesh.devices.shape == (slice_.chips // fsdp // 2, fsdp, 2, 1)
