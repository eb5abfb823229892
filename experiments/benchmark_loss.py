"""Times the guidance loss beside a row-by-row torch version over full maps, on the CPU.

Both compute attention, the hinge loss of CAT (Han et al., EMNLP 2025) and its gradient with
respect to queries and keys. The torch version does what the paper's code does: it keeps the maps
of all layers and heads, averages them, and loops over the rows. Each measurement has a process of
its own, so that its peak memory is its own; that of JAX includes its compiler's, 100 MiB.
"""

import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import tyro

from cat_jax.errors import InputError
from experiments.command_line import exit_status
from pallas_kernels import Implementation, causal_mass_attention

LAYERS, HEADS, SIZE = 2, 2, 64
ALPHA = 2.0
ANNOTATED = 0.25
"""Share of the rows that depend on something; an eighth of the keys are causes."""

TORCH = "torch, maps and rows"
OURS: tuple[Implementation, ...] = ("xla", "xla_chunked")
SIDES = (TORCH, *OURS)


@dataclass(frozen=True)
class Args:
    """What to measure.

    Attributes:
        out: path of the results without suffix: OUT.json and OUT.md.
        lengths: T.
        repeats: of every time, after one call that is not counted.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    repeats: int = 5


@dataclass(frozen=True)
class Result:
    """Seconds of a value with its gradient, and memory beyond that of the imports and inputs."""

    side: str
    length: int
    loss: float
    gradient_norm: float
    seconds: float
    peak_bytes: int


def main() -> None:
    """Measures, checks that all sides agree, and writes the table.

    Raises:
        InputError: torch is missing, or the sides differ.
    """
    request = tyro.cli(Args, prog="python -m experiments.benchmark_loss", description=__doc__)
    results = []
    for length in request.lengths:
        same = [in_own_process(side, length, request.repeats) for side in SIDES]
        check_agreement(same)
        results += same
        print("\n".join(map(str, same)), flush=True)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [vars(result) for result in results]
    request.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    request.out.with_suffix(".md").write_text(page(results))


def in_own_process(side: str, length: int, repeats: int) -> Result:
    """Runs ``measure`` elsewhere.

    Raises:
        InputError: it failed.
    """
    command = f"from {__spec__.name} import *; print_result({side!r}, {length}, {repeats})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{side} failed at T = {length}: {done.stderr.strip().splitlines()[-1]}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def print_result(side: str, length: int, repeats: int) -> None:
    """What ``in_own_process`` reads."""
    print(json.dumps(vars(measure(side, length, repeats))))


def measure(side: str, length: int, repeats: int) -> Result:
    """Times one side in this process."""
    case = make_case(length)
    calls = {name: functools.partial(prepare_jax, case, name) for name in OURS}
    call = (calls | {TORCH: functools.partial(prepare_torch, case)})[side]()
    before = peak_bytes()
    loss, gradients = call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    norm = float(np.sqrt(sum(np.square(x.astype(np.float64)).sum() for x in gradients)))
    return Result(side, length, loss, norm, median(times), peak_bytes() - before)


def peak_bytes() -> int:
    """The most memory this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class Case:
    """Queries and keys [N, T, H, C] float32, effect rows and causes [T] bool."""

    query: np.ndarray
    key: np.ndarray
    rows: np.ndarray
    causes: np.ndarray


def make_case(length: int) -> Case:
    """One random row of a batch."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, LAYERS, length, HEADS, SIZE), np.float32)
    return Case(query, key, rng.random(length) < ANNOTATED, rng.random(length) < 1 / 8)


Call = Callable[[], tuple[float, list[np.ndarray]]]


def prepare_jax(case: Case, implementation: Implementation) -> Call:
    """The package's way: the statistic of each layer, and the loss as a function of it."""
    import jax
    import jax.numpy as jnp

    from cat_jax.losses import attention_guidance_loss

    length = len(case.rows)
    q_bits, k_bits = (jnp.asarray(x, jnp.uint32)[None, :, None] for x in (case.rows, case.causes))
    causal_count = jnp.asarray(np.where(case.rows, np.cumsum(case.causes), 0), jnp.int32)[None]
    visible_count = jnp.arange(1, length + 1, dtype=jnp.int32)[None]

    def mass_of(query_QHC, key_KHC):
        values = query_QHC[None], key_KHC[None], jnp.zeros_like(key_KHC)[None]
        _, mass = causal_mass_attention(*values, q_bits, k_bits, implementation=implementation)
        assert mass is not None  # bits were given
        return mass

    def loss(query, key):
        mass_NBHT = jnp.stack([mass_of(query[n], key[n]) for n in range(LAYERS)])
        return attention_guidance_loss(mass_NBHT, causal_count, visible_count, alpha=ALPHA)[0]

    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def call():
        value, gradients = jax.block_until_ready(function(case.query, case.key))
        return float(value), [np.asarray(x) for x in gradients]

    return call


def prepare_torch(case: Case) -> Call:
    """Full maps of all layers and heads, their mean, and a loop over its rows."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("torch is missing: pip install -e '.[test]' on Python 3.11") from error

    length = len(case.rows)
    later = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    causes = torch.tensor(case.causes)

    def row_loss(i: int, row):
        marked, seen = causes[: i + 1], row[: i + 1]
        if not case.rows[i] or marked.all() or not marked.any():
            return None
        ratio = seen[marked].mean() / seen[~marked].mean()
        return torch.zeros(()) if ratio >= ALPHA else ALPHA - ratio

    def call():
        query, key = (torch.tensor(x, requires_grad=True) for x in (case.query, case.key))
        scores = torch.einsum("nqhc,nkhc->nhqk", query, key) * SIZE**-0.5
        maps = scores.masked_fill(later, -torch.inf).softmax(-1)
        rows = maps.mean((0, 1)).unbind(0)
        losses = [row_loss(i, row) for i, row in enumerate(rows)]
        loss = torch.stack([value for value in losses if value is not None]).mean()
        gradients = torch.autograd.grad(loss, (query, key))
        return loss.item(), [x.numpy() for x in gradients]

    return call


def check_agreement(results: list[Result]) -> None:
    """Raises InputError unless all sides have the same loss and gradient."""
    first = results[0]
    for other in results[1:]:
        for name in ("loss", "gradient_norm"):
            ours, theirs = getattr(other, name), getattr(first, name)
            if abs(ours - theirs) > 1e-3 * abs(theirs):
                raise InputError(
                    f"T = {first.length}: the {name} of {other.side} is {ours}, of {first.side} "
                    f"{theirs}"
                )


def page(results: list[Result]) -> str:
    """A Markdown table: a line per length, two columns per side."""
    head = [f"{side}, {unit}" for side in SIDES for unit in ("s", "MiB")]
    lines = ["# The guidance loss on a CPU", "", (__doc__ or "").strip(), ""]
    lines += [f"| T | {' | '.join(head)} |", "|" + " --- |" * (len(head) + 1)]
    for length in dict.fromkeys(result.length for result in results):
        cells = [
            f"{r.seconds:.3g} | {r.peak_bytes / 2**20:.0f}" for r in results if r.length == length
        ]
        lines.append(f"| {length} | {' | '.join(cells)} |")
    lines += ["", f"{LAYERS} layers, {HEADS} heads of size {SIZE}, one row, float32; medians."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
