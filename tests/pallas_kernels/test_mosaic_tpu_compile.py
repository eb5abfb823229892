"""The TPU kernels through lowering, and through the real compiler for v5e, v5p and v6e."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tpu_compiler import chips, compile_for

from pallas_kernels import Partition, causal_mass_attention

FORWARD, QUERIES, KEYS = (
    f"causal_mass_{name}" for name in ("forward", "query_gradient", "key_gradient")
)


def gradient(query, key, value, *rest, partition=None):
    """d_query, d_key, d_value; ``rest`` is (bits, segments, d_mass) in any part, then d_out."""
    *rest, d_out = rest
    bits = [x for x in rest if x.dtype == jnp.uint32]
    segments = [x for x in rest if x.dtype == jnp.int32]
    d_mass = [x for x in rest if x.dtype == jnp.float32]

    def attend(query, key, value):
        return causal_mass_attention(
            *(query, key, value, *(bits * 2 or [None, None])),
            segment_ids=segments[0] if segments else None,
            implementation="mosaic_tpu",
            partition=partition,
        )

    _, pullback = jax.vjp(attend, query, key, value)
    return pullback((d_out, d_mass[0] if bits else None))


def shapes(length, heads, size, *, batch=1, words=1, segments=False, dtype="bfloat16"):
    """Arguments of ``gradient``; heads of queries and of keys."""
    queries, keys = ((batch, length, n, size) for n in heads)
    given = [(queries, dtype), (keys, dtype), (keys, dtype)]
    if words:
        given += [((batch, length, words), "uint32"), ((batch, heads[0], length), "float32")]
    if segments:
        given += [((batch, length), "int32")]
    return [jax.ShapeDtypeStruct(*x) for x in (*given, (queries, dtype))]


LARGE, SMALL = (32, 8), (12, 2)
LENGTHS = (256, 1024, 4096, 8192, 32768, 131072)
BENCHMARK = [(t, heads, c) for t in LENGTHS for heads, c in ((LARGE, 128), (SMALL, 64))]


@pytest.mark.parametrize(("length", "heads", "size"), BENCHMARK)
def test_lowers_for_tpu(length, heads, size):
    arguments = shapes(length, heads, size, segments=True)
    program = jax.export.export(jax.jit(gradient), platforms=["tpu"])(*arguments).mlir_module()
    calls = re.findall(r"kernel_name = \"(\w+)\"", program)
    assert sorted(calls) == sorted([FORWARD, QUERIES, KEYS])
    # Nothing but the kernels knows of pairs of positions.
    assert not re.search(rf"{length}x{length}x", program)


def check_program(compiled, length, heads, size, batch=1):
    """The three kernels, in memory that grows with the length alone."""
    text = compiled.as_text()
    for name in (FORWARD, QUERIES, KEYS):
        assert re.search(rf"{name}.* custom-call\(", text)
    # Heads first for q, k, v, out and their gradients; float32 statistics of rows; marks.
    row = 2 * batch * length * (heads[0] + 2 * heads[1]) * max(size, 128)
    statistics = 4 * batch * length * heads[0] * 8
    tags = 4 * batch * length * 128
    assert compiled.memory_analysis().temp_size_in_bytes <= 4 * row + 4 * statistics + 4 * tags


def test_compiles():
    compiled = compile_for("v5e", gradient, *shapes(4096, LARGE, 128))
    check_program(compiled, 4096, LARGE, 128)


# The shortest and the longest for each; in between are the same tiles, only more of them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("generation", "case"),
    [("v5e", 0), ("v5e", -2), ("v5p", 1), ("v5p", -1), ("v6e", 0), ("v6e", -1)],
)
def test_benchmark_compiles(generation, case):
    length, heads, size = BENCHMARK[case]
    compiled = compile_for(generation, gradient, *shapes(length, heads, size))
    check_program(compiled, length, heads, size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype", "words"), [(80, "bfloat16", 0), (96, "bfloat16", 8), (256, "float32", 1)]
)
def test_every_head_size_compiles(size, dtype, words):
    """Sizes that fill no lanes, or several; many words; the smallest VMEM."""
    arguments = shapes(1024, (2, 1), size, words=words, segments=True, dtype=dtype)
    compile_for("v5p", gradient, *arguments)


@pytest.mark.parametrize("generation", ["v5e", "v6e"])
def test_four_chips_never_speak_to_each_other(generation):
    mesh = chips(generation, (2, 2), ("data", "tensor"))
    partition = Partition(mesh, ("data",), ("tensor",))
    specs = [P("data", None, "tensor")] * 3 + [P("data"), P("data", "tensor"), P("data")]
    given = shapes(640, (4, 2), 64, batch=2, segments=True)
    placed = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
        for x, spec in zip(given, [*specs, specs[0]], strict=True)
    ]
    text = jax.jit(partial(gradient, partition=partition)).lower(*placed).compile().as_text()
    assert all(name in text for name in (FORWARD, QUERIES, KEYS))
    # Marks of the keys are operands where the matrix unit has columns for them.
    assert ("bf16[1,640,128]" in text) is (generation == "v6e")
    assert not re.findall(
        r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text
    )


@pytest.mark.parametrize("words", [0, 1])
def test_without_bits_no_kernel_has_any_work_for_the_mass(words):
    jaxpr = jax.make_jaxpr(gradient)(*shapes(256, (2, 1), 64, words=words, segments=True))
    assert bool(re.search(r":i32\[256,256\] = and ", str(jaxpr))) is (words > 0)
