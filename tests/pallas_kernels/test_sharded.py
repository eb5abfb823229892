"""Eight devices give the numbers of one, and communicate for split positions alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import make_case
from jax.sharding import AbstractMesh

from pallas_kernels import Partition, causal_mass_attention

CHECK = r"""
import itertools, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from cases import make_case
from pallas_kernels import causal_mass_attention
from pallas_kernels.causal_mass_attention.chunked import chunked_kernel
from pallas_kernels.causal_mass_attention.differentiable import Inputs, differentiable
from pallas_kernels.causal_mass_attention.sharded import Partition, sharded

devices = np.array(jax.devices())
assert len(devices) == 8
mesh = Mesh(devices.reshape(2, 2, 2), ("data", "fsdp", "tensor"))
kernel = chunked_kernel(8)
splits = {
    (): (),
    ("data", "fsdp"): ("tensor",),
    ("data",): (),
    ("fsdp",): ("tensor", "data"),
}
for (batch, heads), bits in itertools.product(splits.items(), (True, False)):
    case = make_case(4, 11, 17, 8, 4, 5, 3, segments=True, seed=1)
    q_bits, k_bits = case.bits if bits else (None, None)
    cotangents = case.cotangents if bits else (case.cotangents[0], None)
    placed = [jax.device_put(x, NamedSharding(mesh, P(batch, None, heads))) for x in case.arrays]

    def run(kernel):
        def both(arrays, cotangents):
            results, pullback = jax.vjp(
                lambda *x: differentiable(kernel, Inputs(*x, q_bits, k_bits, case.segments), 0.3),
                *arrays,
            )
            return results, pullback(cotangents)
        return jax.jit(both)

    partition = Partition(mesh, batch, heads)
    assert sharded(kernel, partition) is sharded(kernel, Partition(mesh, batch, heads))
    there = P(batch, None, heads), P(batch, heads)
    cotangents_there = tuple(
        None if x is None else jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(cotangents, there)
    )
    program = run(sharded(kernel, partition))
    text = program.lower(placed, cotangents_there).compile().as_text()
    found = re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text)
    assert not found, (batch, heads, found)
    actual = program(placed, cotangents_there)
    assert actual[0][0].sharding.is_equivalent_to(NamedSharding(mesh, there[0]), 4)
    expected = run(kernel)(case.arrays, cotangents)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-6)

# Stock attention, whose one-bit rule these bits keep, through the public function.
case = make_case(4, 7, 7, 8, 4, 5, 1, seed=2)
partition = Partition(mesh, ("data",), ("fsdp", "tensor"))
options = {"implementation": "augmented", "segment_ids": case.segments}
one, many = (
    jax.jit(lambda *x: causal_mass_attention(*x, *case.bits, partition=p, **options))(*case.arrays)
    for p in (None, partition)
)
for a, e in zip(many, one, strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, e, rtol=0, atol=1e-6)

# Positions are exchanged for heads and back, and nothing else, unless the two devices along
# "tensor" need the same key head: then each gets a copy of it, and their gradients are added up.
partition = Partition(mesh, ("data",), ("fsdp",), ("tensor",))
split, by_head = (NamedSharding(mesh, P("data", *axes)) for axes in
                  (("tensor", "fsdp"), (("fsdp", "tensor"),)))
for groups in (4, 2):
    case = make_case(4, 6, 6, 8, groups, 5, 3, segments=True, seed=3)

    def both(arrays, cotangents, partition):
        options = dict(segment_ids=case.segments, implementation="xla_chunked", partition=partition)
        results, pullback = jax.vjp(
            lambda *x: causal_mass_attention(*x, *case.bits, **options), *arrays
        )
        gradients = pullback(cotangents)
        if partition is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, split)
        return results, gradients

    run = jax.jit(both, static_argnums=2)
    placed = jax.device_put((case.arrays, case.cotangents), ((split,) * 3, (split, by_head)))
    text = run.lower(*placed, partition).compile().as_text()
    found = set(re.findall(r"(all-reduce|all-gather|all-to-all|permute|reduce-scatter)\(", text))
    assert found == {"all-to-all"} if groups == 4 else found >= {"all-to-all"}, (groups, found)
    actual, expected = run(*placed, partition), run(case.arrays, case.cotangents, None)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=2e-6)
print("equal")
"""


def test_what_does_not_divide_is_refused():
    case = make_case(3, 5, 5, 6, 2, 4, 1)
    mesh = AbstractMesh((2, 4), ("data", "tensor"))
    for partition, message in (
        (
            Partition(mesh, batch_axes=("data",)),
            "3 sequences do not divide among the 2 devices .* axes data",
        ),
        (Partition(mesh, head_axes=("tensor",)), "6 query heads .* 4 devices of mesh axes tensor"),
        (
            Partition(mesh, sequence_axes=("tensor",)),
            "6 query heads .* 4 devices of mesh axes tensor",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            causal_mass_attention(
                *case.arrays, *case.bits, implementation="xla_chunked", partition=partition
            )


def test_eight_devices():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[n]) for n in (0, 2)),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"
