"""The Hopper kernels through lowering, and through the real compiler for the H100."""

import functools
import importlib.util
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels import causal_mass_attention
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.hopper.kernel import OLDEST_JAX

pytestmark = [
    pytest.mark.hopper,
    pytest.mark.skipif(
        jax.__version_info__ < OLDEST_JAX, reason="mosaic_gpu needs jax 0.11 or newer"
    ),
]

NAMES = [f"causal_mass_{part}" for part in ("forward", "query_gradient", "key_gradient")]
LARGE, SMALL = (32, 8), (12, 2)  # heads of queries and of keys
LENGTHS = (256, 1024, 4096, 8192, 32768, 131072)
BENCHMARK = [(t, heads, c) for t in LENGTHS for c in (64, 128) for heads in (LARGE, SMALL)]
FEW = [(256, SMALL, 64), (4096, LARGE, 128), (131072, LARGE, 128), (131072, SMALL, 64)]


def shapes(length, heads, size, *, words=1, segments=False, dtype="bfloat16") -> Inputs:
    query, key = (jax.ShapeDtypeStruct((1, length, n, size), dtype) for n in heads)
    bits = jax.ShapeDtypeStruct((1, length, words), "uint32") if words else None
    ids = jax.ShapeDtypeStruct((1, length), "int32") if segments else None
    return Inputs(query, key, key, bits, bits, ids)


def gradient(inputs: Inputs, d_out, d_mass):
    """Forward and backward."""

    def attend(query, key, value):
        return causal_mass_attention(
            *(query, key, value, inputs.q_bits, inputs.k_bits),
            segment_ids=inputs.segment_ids,
            implementation="mosaic_gpu",
        )

    results, pullback = jax.vjp(attend, *inputs[:3])
    return results, pullback((d_out, d_mass))


def arguments(inputs: Inputs):
    batch, queries, heads, _ = inputs.query.shape
    d_mass = jax.ShapeDtypeStruct((batch, heads, queries), "float32")
    return inputs, inputs.query, d_mass if inputs.q_bits is not None else None


def lower(length, heads, size):
    checks = [jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
    export = jax.export.export(jax.jit(gradient), platforms=["cuda"], disabled_checks=checks)
    program = export(*arguments(shapes(length, heads, size, segments=True))).mlir_module()
    assert program.count("stablehlo.custom_call @mosaic_gpu_v2") == len(NAMES)
    # Nothing but the kernels knows of pairs of positions.
    assert not re.search(rf"{length}x{length}x", program)


@pytest.mark.parametrize(("length", "heads", "size"), FEW)
def test_lowers_for_cuda(length, heads, size):
    lower(length, heads, size)


@pytest.mark.slow
@pytest.mark.parametrize(("length", "heads", "size"), [x for x in BENCHMARK if x not in FEW])
def test_lowers_more_for_cuda(length, heads, size):
    lower(length, heads, size)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def h100(shared):
    """Where to compile for; without the compiler it skips, but not in CI."""
    needs = {"jax-cuda13-plugin": "jax_cuda13_plugin", "jax-cuda13-pjrt": "jax_plugins.xla_cuda13"}
    missing = [name for name, module in needs.items() if not _has(module)]
    if not shutil.which("ptxas") and not _has("nvidia.cu13"):
        missing.append("ptxas (of nvidia-cuda-nvcc)")
    if missing:
        reason = f"the GPU compiler needs {', '.join(missing)}: make test EXTRAS=test,compilers"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    target = (shared / "targets" / "h100.txtpb").read_text()
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=target, topology="1x1x1"
    )
    return NamedSharding(Mesh(np.array(topology.devices).reshape(1), ("x",)), PartitionSpec())


def compile_kernels(h100, monkeypatch, capfd, inputs: Inputs, kernels=NAMES, spilled=0):
    """Compile value and gradient; no kernel may spill more bytes of registers."""
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    place = functools.partial(jax.ShapeDtypeStruct, sharding=h100)
    given = jax.tree.map(lambda x: place(x.shape, x.dtype), arguments(inputs))
    compiled = jax.jit(gradient).lower(*given).compile()
    text = "".join(capfd.readouterr())
    names = re.findall(r"Compiling entry function '(\w+)_mosaic_gpu_kernel' for 'sm_90a'", text)
    assert sorted(names) == sorted(kernels)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)
    assert len(spills) >= len(kernels)  # one that spills is named twice
    assert spilled or len(spills) == len(kernels)
    assert max(int(count) for pair in spills for count in pair) <= spilled
    # 168 registers for each of 384 threads is what setmaxnreg deals out again: 24, 240 and 240.
    assert re.findall(r"Used (\d+) registers", text) == ["168"] * len(kernels)
    return compiled


@pytest.mark.parametrize(("heads", "size"), [(LARGE, 128), (SMALL, 64)])
def test_compiles(h100, monkeypatch, capfd, heads, size):
    inputs = shapes(4096, heads, size)
    compiled = compile_kernels(h100, monkeypatch, capfd, inputs)
    # Memory grows with the length alone: one map would be 64 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 64e6


TWO_PASSES = [*NAMES, NAMES[2]]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"words": 0}, {"words": 8, "segments": True}])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_compiles_without_bits_and_with_many_marks(h100, monkeypatch, capfd, size, options):
    inputs = shapes(1024, (4, 2), size, **options)
    kernels = TWO_PASSES if size == 256 else NAMES
    # With eight words and segments the forward at head size 128 keeps one register in memory.
    spilled = 4 if size == 128 and options["words"] else 0
    compile_kernels(h100, monkeypatch, capfd, inputs, kernels, spilled)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(80, "bfloat16"), (96, "float16"), (256, "bfloat16")])
def test_compiles_other_sizes(h100, monkeypatch, capfd, size, dtype):
    inputs = shapes(1000, (4, 4), size, dtype=dtype)
    compile_kernels(h100, monkeypatch, capfd, inputs, TWO_PASSES if size == 256 else NAMES)


@pytest.mark.slow
def test_memory_of_the_longest_benchmark(h100):
    place = functools.partial(jax.ShapeDtypeStruct, sharding=h100)
    given = jax.tree.map(lambda x: place(x.shape, x.dtype), arguments(shapes(131072, LARGE, 128)))
    memory = jax.jit(gradient).lower(*given).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4e9
    assert jnp.dtype("bfloat16").itemsize * 131072**2 > 30e9  # one map alone
