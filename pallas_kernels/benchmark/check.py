"""Check an implementation on this machine, where the tests have interpreters only.

Values and gradients are compared with xla_chunked in float32, and each case runs twice: a
difference between the two runs would be a race.
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pallas_kernels.causal_mass_attention.api import causal_mass_attention
from pallas_kernels.causal_mass_attention.selection import Implementation, unsupported_reason

TOLERANCE = {"float32": 1e-4, "bfloat16": 1.5e-2, "float16": 4e-3}
"""Tolerance of out and gradients, relative to the largest entry or 1."""
MASS_TOLERANCE = 1e-4
FEW_BITS = np.array([0, 1, 1 << 31], np.uint32)


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

    implementation: Annotated[Implementation, tyro.conf.Positional]
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    cases: int = len(CASES)


def main() -> int:
    """Print a line per case; return 1 if any differs, 2 if the implementation cannot run here."""
    args = tyro.cli(Args, prog="python -m pallas_kernels.benchmark.check", description=__doc__)
    refusal = unsupported_reason(args.implementation, args.dtype)
    if refusal is not None:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    passed, run = True, 0
    for case in CASES:
        if run == args.cases:
            break
        refusal = unsupported(case, args)
        if refusal is not None:
            print(f"not supported: {case} ({refusal})", flush=True)
            continue
        run += 1
        errors, repeats = check(case, args.implementation, args.dtype)
        good = repeats and all(error <= 1 for error in errors.values())
        passed &= good
        numbers = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        verdict = "ok" if good else "WRONG" if repeats else "DIFFERS FROM RUN TO RUN"
        print(f"{verdict}: {case} (errors over tolerance: {numbers})", flush=True)
    if run == 0:
        print(f"error: {args.implementation} supports none of the cases", file=sys.stderr)
        return 2
    return 0 if passed else 1


def unsupported(case: Case, args: Args) -> str | None:
    """Return why the implementation does not support a case, or None."""
    return unsupported_reason(
        args.implementation,
        args.dtype,
        head_dim=case.c,
        length=case.k,
        queries=case.q,
        words=case.w,
        segments=case.segments,
    )


def check(case: Case, implementation: Implementation, dtype: str) -> tuple[dict[str, float], bool]:
    """Return the largest errors over their tolerance, and whether a second run is bit-equal."""
    given = make_inputs(case, dtype)
    run = jax.jit(partial(value_and_gradient, implementation))
    actual, again = run(*given), run(*given)
    repeats = all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(again), strict=True)
    )
    exact = [None if x is None else widen(x) for x in given]
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(partial(value_and_gradient, "xla_chunked"))(*exact)
    errors = {}
    for name, ours in actual.items():
        allowed = MASS_TOLERANCE if name == "mass" else TOLERANCE[dtype]
        errors[name] = relative(widen(ours), expected[name]) / allowed
    return errors, repeats


def relative(actual: Any, expected: Any) -> float:
    """Return the largest difference, relative to the largest entry or 1."""
    return float(jnp.abs(actual - expected).max() / jnp.maximum(1, jnp.abs(expected).max()))


def widen(x: Any) -> Any:
    """Return floats in float32, other arrays as they are."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def make_inputs(case: Case, dtype: str) -> list[Any]:
    """Return queries, keys, values, bits of both, segments, and cotangents of out and mass."""
    rng = np.random.default_rng(sum(case))
    b, q, k, h, g, c, w, segments = case

    def normal(*shape, dtype=dtype):
        return jnp.asarray(rng.standard_normal(shape, np.float32), dtype)

    def bits(length):
        return rng.choice(FEW_BITS, p=[0.8, 0.1, 0.1], size=(b, length, w))

    # Each query has bits of one word only: a pair then shares at most one, as augmented needs.
    q_bits = bits(q) * (rng.integers(0, max(w, 1), (b, q, 1)) == np.arange(w))
    both = [jnp.asarray(x, jnp.uint32) if w else None for x in (q_bits, bits(k))]
    ids = jnp.asarray(np.sort(rng.integers(0, 4, (b, k)), axis=1), jnp.int32)
    arrays = [normal(b, q, h, c), normal(b, k, g, c), normal(b, k, g, c)]
    cotangents = [normal(b, q, h, c), normal(b, h, q, dtype="float32") if w else None]
    return [*arrays, *both, ids if segments else None, *cotangents]


def value_and_gradient(
    implementation: Implementation, query, key, value, q_bits, k_bits, segments, d_out, d_mass
) -> dict[str, Any]:
    """Return out, mass (with bits) and the three gradients, by name."""

    def attend(query, key, value):
        arrays = query, key, value, q_bits, k_bits
        return causal_mass_attention(*arrays, segment_ids=segments, implementation=implementation)

    (out, mass), pullback = jax.vjp(attend, query, key, value)
    gradients = pullback((d_out, d_mass))
    names = ("out", "mass", "d_query", "d_key", "d_value")
    found = zip(names, (out, mass, *gradients), strict=True)
    return {name: x for name, x in found if x is not None}


if __name__ == "__main__":
    sys.exit(main())
