import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.config import MeshShape
from cat_jax.errors import InputError
from cat_jax.models import ModelConfig
from experiments.planning.job import Job, Layout, layouts

MODEL = ModelConfig(96, 48, 72, 2, 12, 6, 4)


def job(sequences=24, model=MODEL):
    return Job("small", model, "all", 128, sequences, 64)


@given(st.sampled_from([1, 2, 6, 8, 12, 32]), st.integers(1, 60))
def test_every_layout_takes_all_chips_and_divides(chips, sequences):
    try:
        found = layouts(job(sequences), chips)
    except InputError:
        return
    assert len(set(found)) == len(found)
    for layout in found:
        assert layout.data * layout.state_shards == math.prod(layout.sizes) == chips
        assert (
            layout.sequences_at_once(job(sequences)) * layout.data * layout.fsdp * layout.accumulate
            == sequences
        )
        for size in (6, 72, 96):
            assert size % layout.tensor == 0
        assert 48 % (layout.fsdp * layout.context) == 12 % (layout.tensor * layout.context) == 0
        assert layout.positions_at_once(job(sequences)) * chips * layout.accumulate == (
            sequences * 128 * layout.tensor
        )


def test_layouts_of_a_small_slice():
    meshes = {found.sizes for found in layouts(job(), 4)}
    by_batch = {(4, 1, 1, 1), (2, 2, 1, 1), (1, 4, 1, 1)}
    by_heads = {(2, 1, 2, 1), (1, 2, 2, 1)}  # 6 do not divide among 4
    by_positions = {(2, 1, 1, 2), (1, 2, 1, 2), (1, 1, 2, 2), (1, 1, 1, 4)}
    assert meshes == by_batch | by_heads | by_positions
    assert {found.accumulate for found in layouts(job(), 4, MeshShape(4))} == {1, 2, 3, 6}
    assert layouts(job(), 4, MeshShape(None, 2, 2), accumulate=3) == [Layout(1, 2, 2, 1, 3)]


@pytest.mark.parametrize(
    ("sequences", "mesh", "accumulate", "said"),
    [
        (24, MeshShape(2, 2, 2, 2), None, "2 (data, fsdp, tensor, context) shares small and 24"),
        (24, MeshShape(1, 1, 4), None, "tensor its 6 key/value heads"),
        (24, None, 5, "no mesh shares"),
        (1, MeshShape(4), None, "divide the sequences"),
    ],
)
def test_what_cannot_be_shared_is_refused(sequences, mesh, accumulate, said):
    with pytest.raises(InputError) as caught:
        layouts(job(sequences), 4, mesh, accumulate)
    assert said in str(caught.value)


def test_names():
    assert str(Layout(2, 4, 1)) == "2 x 4 x 1 x 1"
    assert str(Layout(2, 4, 1, 8, 3)) == "2 x 4 x 1 x 8, 3 micro-batches"
    assert job().lora is None
    assert job().tokens == 24 * 128
