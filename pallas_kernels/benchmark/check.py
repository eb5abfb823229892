"""Check an implementation on this machine, where the tests have interpreters only.

Values and gradients are compared with xla_chunked in float32, for the first and the last group of
heads; and each case runs twice: a difference between the two runs, of any head, would be a race.
All programs are compiled first, side by side.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from pallas_kernels.benchmark.attentions import WAYS, Name, attention, refusal
from pallas_kernels.causal_mass_attention.support import InputSpec

TOLERANCE = {"float32": 1e-4, "bfloat16": 1.5e-2, "float16": 4e-3}
"""Tolerance of out and gradients, relative to the largest entry or 1."""
MASS_TOLERANCE = 1e-4
STOCK = ("augmented", *WAYS)
"""Implementations that round the mass to the dtype. cuDNN's backward sums in any order."""
FEW_BITS = np.array([0, 1, 1 << 31], np.uint32)
SETS = 20


class Case(NamedTuple):
    """Sizes, by the letters of the shape suffixes; w = 0 means no bits."""

    b: int
    q: int
    k: int
    h: int
    g: int
    c: int
    w: int
    segments: bool


CASES = (
    Case(2, 1, 1, 2, 1, 64, 1, False),
    Case(2, 777, 777, 12, 2, 64, 1, True),
    Case(1, 300, 1500, 8, 2, 128, 2, True),
    Case(2, 2048, 2048, 32, 8, 128, 1, False),
    Case(2, 2048, 2048, 8, 8, 128, 0, False),
    Case(1, 1000, 1000, 4, 4, 80, 1, True),
    Case(1, 1000, 1000, 4, 2, 96, 8, True),
    Case(2, 1500, 1500, 4, 2, 256, 1, True),
    Case(1, 8192, 8192, 32, 8, 128, 1, True),
)


@dataclass(frozen=True)
class Args:
    """What to check.

    Attributes:
        implementation: Implementation to check.
        dtype: Dtype of queries, keys and values.
        cases: Number of cases to run, the smallest first, of those that it supports.
    """

    implementation: Annotated[Name, tyro.conf.Positional]
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    cases: int = len(CASES)


def main() -> int:
    """Print a line per case; return 1 if any differs, 2 if the implementation cannot run here."""
    args = tyro.cli(Args, prog="python -m pallas_kernels.benchmark.check", description=__doc__)
    reason = refusal(args.implementation, InputSpec(args.dtype))
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    cases = supported_cases(args)
    if not cases:
        print(f"error: {args.implementation} supports none of the cases", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(lambda case: compile_case(case, args), cases))
    print(f"compiled after {time.perf_counter() - start:.0f} s", flush=True)
    passed = True
    for case, programs in zip(cases, compiled, strict=True):
        errors, repeats = check(case, args, programs)
        good = all(error <= 1 for error in errors.values())
        good &= repeats or args.implementation in STOCK
        passed &= good
        numbers = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        verdict = "ok" if good else "WRONG" if repeats else "DIFFERS FROM RUN TO RUN"
        note = "" if repeats or not good else ", not bit-equal from run to run"
        print(f"{verdict}: {case} (errors over tolerance: {numbers}{note})", flush=True)
    print(f"checked after {time.perf_counter() - start:.0f} s", flush=True)
    return 0 if passed else 1


def supported_cases(args: Args) -> list[Case]:
    """Return the cases to run, and print why others are not."""
    chosen = []
    for case in CASES:
        if len(chosen) == args.cases:
            break
        spec = InputSpec(args.dtype, case.c, case.q, case.k, case.w, case.segments)
        reason = refusal(args.implementation, spec)
        if reason is None:
            chosen.append(case)
        else:
            print(f"not supported: {case} ({reason})", flush=True)
    return chosen


class Programs(NamedTuple):
    """What is checked, and the comparison of two runs of it: (given, first, second)."""

    actual: Callable[..., dict[str, Any]]
    compare: Callable[..., tuple[dict[str, Array], Array]]


def compile_case(case: Case, args: Args) -> Programs:
    """Compile both programs, from shapes alone."""
    given = jax.eval_shape(partial(zeros, case, args.dtype))
    run = jax.jit(partial(value_and_gradient, args.implementation))
    results = jax.eval_shape(run, *given)
    with jax.default_matmul_precision("highest"):
        compare = jax.jit(partial(comparison, case, args)).lower(given, results, results)
    return Programs(run.lower(*given).compile(), compare.compile())


def check(case: Case, args: Args, programs: Programs) -> tuple[dict[str, float], bool]:
    """Return the largest errors over their tolerance, and whether a second run is bit-equal."""
    given = make_inputs(case, args.dtype)
    errors, repeats = programs.compare(given, programs.actual(*given), programs.actual(*given))
    return {name: float(error) for name, error in errors.items()}, bool(repeats)


def comparison(
    case: Case, args: Args, given: Sequence[Any], actual: dict[str, Any], again: dict[str, Any]
) -> tuple[dict[str, Array], Array]:
    """Return the errors of the first and the last group, and whether both runs are bit-equal."""
    same = [jnp.array_equal(actual[name], again[name], equal_nan=True) for name in actual]
    expected = value_and_gradient("xla_chunked", *sampled(case, given))
    errors = {}
    for name, found in sampled_results(case, actual).items():
        exact = name == "mass" and args.implementation not in STOCK
        allowed = MASS_TOLERANCE if exact else TOLERANCE[args.dtype]
        errors[name] = relative(found, expected[name]) / allowed
    return errors, jnp.stack(same).all()


def ends(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last group of keys, and their query heads."""
    groups = np.unique([0, case.g - 1])
    per_group = case.h // case.g
    return groups, (groups[:, None] * per_group + np.arange(per_group)).ravel()


def sampled(case: Case, given: Sequence[Any]) -> list[Any]:
    """Return the inputs of those heads in float32."""
    groups, heads = ends(case)
    query, key, value, q_bits, k_bits, segments, d_out, d_mass = given
    arrays = [widen(x[:, :, at]) for x, at in ((query, heads), (key, groups), (value, groups))]
    d_mass = None if d_mass is None else d_mass[:, heads]
    return [*arrays, q_bits, k_bits, segments, widen(d_out[:, :, heads]), d_mass]


def sampled_results(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    """Return the results of those heads in float32."""
    groups, heads = ends(case)
    of_groups = ("d_key", "d_value")

    def of_ends(name: str, x: Any) -> Any:
        return x[:, heads] if name == "mass" else x[:, :, groups if name in of_groups else heads]

    return {name: widen(of_ends(name, x)) for name, x in results.items()}


def relative(actual: Array, expected: Array) -> Array:
    """Return the largest difference, relative to the largest entry or 1."""
    return jnp.abs(actual - expected).max() / jnp.maximum(1, jnp.abs(expected).max())


def widen(x: Any) -> Any:
    """Return floats in float32, other arrays as they are."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def zeros(case: Case, dtype: str) -> list[Any]:
    """Return inputs of the same shapes as ``make_inputs``."""
    b, q, k, h, g, c, w, segments = case
    arrays = [jnp.zeros(shape, dtype) for shape in ((b, q, h, c), (b, k, g, c), (b, k, g, c))]
    bits = [jnp.zeros((b, t, w), jnp.uint32) if w else None for t in (q, k)]
    ids = jnp.zeros((b, k), jnp.int32) if segments else None
    d_mass = jnp.zeros((b, h, q)) if w else None
    return [*arrays, *bits, ids, jnp.zeros((b, q, h, c), dtype), d_mass]


def make_inputs(case: Case, dtype: str) -> list[Any]:
    """Return queries, keys, values, bits of both, segments, and cotangents of out and mass."""
    rng = np.random.default_rng(sum(case))
    b, q, k, h, g, c, w, segments = case

    def normal(*shape, dtype=dtype):
        return jnp.asarray(rng.standard_normal(shape, np.float32), dtype)

    def bits(*shape):
        return rng.choice(FEW_BITS, p=[0.8, 0.1, 0.1], size=(*shape, w))

    # Few sets of bits: each is one class, and augmented has 32 a word.
    q_bits = bits(SETS)[rng.integers(0, SETS, (b, q))]
    both = [jnp.asarray(x, jnp.uint32) if w else None for x in (q_bits, bits(b, k))]
    ids = jnp.asarray(np.sort(rng.integers(0, 4, (b, k)), axis=1), jnp.int32)
    arrays = [normal(b, q, h, c), normal(b, k, g, c), normal(b, k, g, c)]
    cotangents = [normal(b, q, h, c), normal(b, h, q, dtype="float32") if w else None]
    return [*arrays, *both, ids if segments else None, *cotangents]


def value_and_gradient(
    name: Name, query, key, value, q_bits, k_bits, segments, d_out, d_mass
) -> dict[str, Any]:
    """Return out, mass (with bits) and the three gradients, by name."""
    run = attention(name)

    def attend(query, key, value):
        return run(query, key, value, q_bits, k_bits, segments)

    (out, mass), pullback = jax.vjp(attend, query, key, value)
    gradients = pullback((d_out, d_mass))
    names = ("out", "mass", "d_query", "d_key", "d_value")
    found = zip(names, (out, mass, *gradients), strict=True)
    return {name: x for name, x in found if x is not None}


if __name__ == "__main__":
    sys.exit(main())
