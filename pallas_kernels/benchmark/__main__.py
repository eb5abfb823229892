"""Measure every implementation that can run on this machine, and torch's attention on a CPU."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pallas_kernels.benchmark.attentions import Name
from pallas_kernels.benchmark.candidates import Candidate, candidates, default_names
from pallas_kernels.benchmark.exact import exact_rows, relative_error, sample_rows
from pallas_kernels.benchmark.measure import (
    Compiled,
    Program,
    compile_all,
    resident_bytes,
    time_in_turn,
)
from pallas_kernels.benchmark.report import environment, write_report
from pallas_kernels.benchmark.results import Result
from pallas_kernels.benchmark.shapes import (
    ANNOTATIONS,
    CPU_LENGTHS,
    HEADS,
    LENGTHS,
    SIZES,
    Annotation,
    Case,
    Layout,
    Shape,
    make_case,
)
from pallas_kernels.benchmark.torch_attention import TORCH, torch_programs, torch_refusal

HEAD = 0
"""Head whose errors are reported."""


@dataclass(frozen=True)
class Args:
    """What to measure.

    Attributes:
        out: Path of the results without suffix: OUT.json and OUT.md.
        lengths: Sequence lengths; by default 256 and 1024 on a CPU, 2048 to 32768 elsewhere.
        heads: Numbers of query heads, 32 (8 key/value heads) or 12 (2 key/value heads); by default
            both on a CPU, 32 elsewhere.
        sizes: Head sizes.
        annotations: Dense or sparse.
        layouts: One record, or several in segments; by default both, whole ones alone on a CPU.
        names: What is measured; by default all on a CPU, elsewhere the kernel of the machine and
            both ways of augmented, beside stock attention.
        dtype: Dtype of queries, keys and values; by default float32 on a CPU, bfloat16 elsewhere.
        samples: Number of samples of every time.
        minutes: Time after which no further shape is begun.
        trace: Folder for a profiler trace of one call of every program.
    """

    out: Path
    lengths: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    sizes: tuple[int, ...] = SIZES
    annotations: tuple[Annotation, ...] = ANNOTATIONS
    layouts: tuple[Layout, ...] = ()
    names: tuple[Name, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    samples: int = 5
    minutes: float = 60.0
    trace: Path | None = None


def main() -> None:
    """Print the progress and write the results after every shape."""
    args = complete(tyro.cli(Args, prog="python -m pallas_kernels.benchmark", description=__doc__))
    settings = {**environment(), "dtype": args.dtype, "samples": args.samples}
    deadline = time.monotonic() + 60 * args.minutes
    results: list[Result] = []
    left_out: list[Shape] = []
    for shapes in chosen_shapes(args):
        if time.monotonic() > deadline:
            left_out += shapes
            continue
        print("; ".join(map(str, shapes)), flush=True)
        results += measure_shapes(shapes, args)
        write_report(args.out, settings, results)
    write_report(args.out, settings, results, left_out)
    print(f"wrote {args.out}.json and {args.out}.md, {len(left_out)} shapes left out")


def complete(args: Args) -> Args:
    """Fill in the defaults that depend on the machine."""
    on_cpu = jax.default_backend() == "cpu"
    known = HEADS if on_cpu else HEADS[:1]
    return replace(
        args,
        lengths=args.lengths or (CPU_LENGTHS if on_cpu else LENGTHS),
        heads=args.heads or tuple(heads for heads, _ in known),
        layouts=args.layouts or (("whole",) if on_cpu else ("whole", "packed")),
        names=args.names or default_names(),
        dtype=args.dtype or ("float32" if on_cpu else "bfloat16"),
    )


def chosen_shapes(args: Args) -> Iterator[list[Shape]]:
    """Yield the shapes that the arguments name; those of one list run the same programs."""
    heads = [pair for pair in HEADS if pair[0] in args.heads]
    for length, size, pair, layout in product(args.lengths, args.sizes, heads, args.layouts):
        yield [Shape(length, *pair, size, each, layout) for each in args.annotations]


def measure_shapes(shapes: Sequence[Shape], args: Args) -> list[Result]:
    """Compile all candidates, and measure them on shapes that differ in the annotation alone."""
    dtype = str(args.dtype)
    found = candidates(shapes[0], dtype, args.names)
    able = {c.name: c for c in found if c.refusal is None}
    functions = {name: forward_of(c) for name, c in able.items()}
    functions |= {f"{name}, both": with_gradient(c) for name, c in able.items()}
    compiled = compile_all(functions, on_device(make_case(shapes[0]), dtype))
    return [result for shape in shapes for result in measure_shape(shape, args, found, compiled)]


def measure_shape(
    shape: Shape, args: Args, found: Sequence[Candidate], compiled: dict[str, Compiled]
) -> list[Result]:
    """Measure all candidates on one shape, timed in turn."""
    dtype = str(args.dtype)
    case = round_to(make_case(shape), dtype)
    arguments = on_device(case, dtype)
    able = [c.name for c in found if c.refusal is None]
    forwards = {name: compiled[name].on(arguments) for name in able}
    boths = {name: compiled[f"{name}, both"].on(arguments) for name in able}
    refusals = {c.name: c.refusal for c in found} | {TORCH: torch_refusal(shape)}
    if refusals[TORCH] is None:
        forwards[TORCH], boths[TORCH] = torch_programs(case, dtype)
    timings = time_in_turn([*forwards.values(), *boths.values()], args.samples)
    if args.trace is not None:
        with jax.profiler.trace(str(args.trace / str(shape).replace("/", "_"))):
            jax.block_until_ready([p.call() for p in (*forwards.values(), *boths.values())])
    measured = {
        name: Result(
            name,
            shape,
            forward=timings[n],
            both=timings[len(boths) + n],
            temporary_bytes=both.temporary_bytes,
            resident_bytes=resident_bytes(both),
            errors=errors(both, case),
        )
        for n, (name, both) in enumerate(boths.items())
    }
    return [measured.get(name) or Result(name, shape, why) for name, why in refusals.items()]


def round_to(case: Case, dtype: str) -> Case:
    """Round the floats to ``dtype``, so that errors are those of the computation alone."""
    floats = {name: getattr(case, name) for name in ("query", "key", "value", "d_out")}
    kind = jnp.dtype(dtype)
    return replace(case, **{n: x.astype(kind).astype(np.float32) for n, x in floats.items()})


def on_device(case: Case, dtype: str) -> list[Any]:
    """Put queries, keys, values, bits of both, segments, and the cotangents on the device."""
    floats = [jnp.asarray(x, dtype) for x in (case.query, case.key, case.value)]
    ids = None if case.segment_ids is None else jnp.asarray(case.segment_ids)
    bits = [jnp.asarray(case.q_bits), jnp.asarray(case.k_bits)]
    return [*floats, *bits, ids, jnp.asarray(case.d_out, dtype), jnp.asarray(case.d_mass)]


def forward_of(candidate: Candidate):
    """Return a function of the same arguments as ``with_gradient``, without the gradient."""

    def run(query, key, value, q_bits, k_bits, segment_ids, d_out, d_mass):
        del d_out, d_mass
        return candidate.run(query, key, value, q_bits, k_bits, segment_ids)

    return run


def with_gradient(candidate: Candidate):
    """Return a function (inputs, cotangents) -> out, mass, gradients of query, key and value."""

    def run(query, key, value, q_bits, k_bits, segment_ids, d_out, d_mass):
        (out, mass), pullback = jax.vjp(
            lambda *arrays: candidate.run(*arrays, q_bits, k_bits, segment_ids), query, key, value
        )
        return out, mass, pullback((d_out, None if mass is None else d_mass))

    return run


def errors(program: Program, case: Case) -> dict[str, float]:
    """Return errors relative to float64 for some queries, the gradient of the mass included."""
    out, mass, (d_query, _, _) = program.call()
    rows = sample_rows(case.query.shape[1])
    if mass is None:
        case = replace(case, d_mass=np.zeros_like(case.d_mass))
    exact = exact_rows(case, HEAD, rows)
    found = {"out": relative_error(out[0, rows, HEAD], exact.out)}
    if mass is not None:
        found["mass"] = relative_error(mass[0, HEAD, rows], exact.mass)
    return found | {"d_query": relative_error(d_query[0, rows, HEAD], exact.d_query)}


if __name__ == "__main__":
    main()
