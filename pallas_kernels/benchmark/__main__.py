"""Measure every implementation that can run on this machine, and torch's attention on a CPU."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pallas_kernels.benchmark.candidates import Candidate, candidates
from pallas_kernels.benchmark.exact import exact_rows, relative_error, sample_rows
from pallas_kernels.benchmark.measure import (
    Program,
    compile_program,
    resident_bytes,
    time_in_turn,
)
from pallas_kernels.benchmark.report import Result, environment, write_report
from pallas_kernels.benchmark.shapes import (
    ANNOTATIONS,
    HEADS,
    LENGTHS,
    SIZES,
    Annotation,
    Case,
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
        lengths: Sequence lengths; by default 256 and 1024 on a CPU, to 131072 elsewhere.
        heads: Numbers of query heads, 32 (8 key/value heads) or 12 (2 key/value heads).
        sizes: Head sizes.
        annotations: Dense or sparse.
        dtype: Dtype of queries, keys and values; by default float32 on a CPU, bfloat16 elsewhere.
        samples: Number of samples of every time.
        trace: Folder for a profiler trace of one call of every program.
    """

    out: Path
    lengths: tuple[int, ...] = ()
    heads: tuple[int, ...] = tuple(heads for heads, _ in HEADS)
    sizes: tuple[int, ...] = SIZES
    annotations: tuple[Annotation, ...] = ANNOTATIONS
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    samples: int = 9
    trace: Path | None = None


def main() -> None:
    """Print the progress and write the results after every shape."""
    args = complete(tyro.cli(Args, prog="python -m pallas_kernels.benchmark", description=__doc__))
    settings = {**environment(), "dtype": args.dtype, "samples": args.samples}
    results: list[Result] = []
    for shape in chosen_shapes(args):
        print(shape, flush=True)
        results += measure_shape(shape, args)
        write_report(args.out, settings, results)
    print(f"wrote {args.out}.json and {args.out}.md")


def complete(args: Args) -> Args:
    """Fill in the defaults that depend on the machine."""
    on_cpu = jax.default_backend() == "cpu"
    lengths = args.lengths or tuple(t for t in LENGTHS if t <= 1024 or not on_cpu)
    return replace(args, lengths=lengths, dtype=args.dtype or ("float32" if on_cpu else "bfloat16"))


def chosen_shapes(args: Args) -> Iterator[Shape]:
    """Yield the shapes that the arguments name."""
    heads = [pair for pair in HEADS if pair[0] in args.heads]
    for length, pair, size, annotation in product(
        args.lengths, heads, args.sizes, args.annotations
    ):
        yield Shape(length, *pair, size, annotation)


def measure_shape(shape: Shape, args: Args) -> list[Result]:
    """Measure all candidates on one shape, timed in turn."""
    dtype = str(args.dtype)
    case = round_to(make_case(shape), dtype)
    arguments = on_device(case, dtype)
    found = {c.name: c for c in candidates(shape, dtype)}
    able = {name: c for name, c in found.items() if c.refusal is None}
    forwards = {name: compile_program(c.run, arguments[:5]) for name, c in able.items()}
    boths = {name: compile_program(with_gradient(c), arguments) for name, c in able.items()}
    refusals = {name: c.refusal for name, c in found.items()} | {TORCH: torch_refusal()}
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
    """Put queries, keys, values, bits of both, and the cotangents on the device."""
    floats = [jnp.asarray(x, dtype) for x in (case.query, case.key, case.value)]
    bits = [jnp.asarray(case.q_bits), jnp.asarray(case.k_bits)]
    return [*floats, *bits, jnp.asarray(case.d_out, dtype), jnp.asarray(case.d_mass)]


def with_gradient(candidate: Candidate):
    """Return a function (inputs, cotangents) -> out, mass, gradients of query, key and value."""

    def run(query, key, value, q_bits, k_bits, d_out, d_mass):
        (out, mass), pullback = jax.vjp(
            lambda *arrays: candidate.run(*arrays, q_bits, k_bits), query, key, value
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
