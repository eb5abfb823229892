"""Time and memory of the guidance loss, beside a torch version over full attention maps.

All implementations compute attention, the hinge loss of CAT (Han et al., EMNLP 2025) and its
gradient with respect to queries and keys.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.errors import InputError
from cat_jax.losses import attention_guidance_loss
from experiments.benchmarking.processes import peak_bytes, run_module
from pallas_kernels import Implementation, causal_mass_attention

LAYERS, HEADS, SIZE = 2, 2, 64
ALPHA = 2.0
EFFECTS, CAUSES = 1 / 4, 1 / 8
"""Shares of the positions that are annotated as effects and as causes."""

TORCH = "torch, maps and rows"
OURS: tuple[Implementation, ...] = ("xla", "xla_chunked")
IMPLEMENTATIONS = (TORCH, *OURS)


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        implementation: One of ``IMPLEMENTATIONS``.
        length: T, positions of the sequence.
        repeats: Timed calls.
    """

    implementation: str
    length: int
    repeats: int


@dataclass(frozen=True)
class Result:
    """Measurement of one implementation at one length.

    Attributes:
        implementation: One of ``IMPLEMENTATIONS``.
        length: T, positions of the sequence.
        loss: Value of the loss.
        gradient_norm: Norm of the gradient with respect to queries and keys.
        seconds: Median time of the value with its gradient.
        peak_bytes: Peak memory beyond that of the imports and inputs.
    """

    implementation: str
    length: int
    loss: float
    gradient_norm: float
    seconds: float
    peak_bytes: int


def compare(length: int, repeats: int) -> list[Result]:
    """Measure every implementation at one length.

    Raises:
        InputError: torch is missing, an implementation fails, or they differ.
    """
    results = [in_own_process(Task(name, length, repeats)) for name in IMPLEMENTATIONS]
    check_agreement(results)
    return results


def in_own_process(task: Task) -> Result:
    """Measure in a new process, whose peak memory is that of this implementation alone.

    Raises:
        InputError: The process failed.
    """
    found = run_module(__name__, task)
    if isinstance(found, str):
        raise InputError(f"{task.implementation} failed at T = {task.length}: {found}")
    return Result(**found)


def measure(task: Task) -> Result:
    """Time one implementation in this process; the first call is not counted."""
    case = make_case(task.length)
    ours = {name: functools.partial(prepare_jax, case, name) for name in OURS}
    call = (ours | {TORCH: functools.partial(prepare_torch, case)})[task.implementation]()
    before = peak_bytes()
    loss, gradients = call()
    times = []
    for _ in range(task.repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    norm = float(np.sqrt(sum(np.square(x.astype(np.float64)).sum() for x in gradients)))
    used = peak_bytes() - before
    return Result(task.implementation, task.length, loss, norm, median(times), used)


@dataclass(frozen=True)
class Case:
    """One annotated sequence.

    Attributes:
        query_NTHC: Queries, float32.
        key_NTHC: Keys, float32.
        effects_T: True at queries whose causes are annotated.
        causes_T: True at annotated keys.
    """

    query_NTHC: np.ndarray
    key_NTHC: np.ndarray
    effects_T: np.ndarray
    causes_T: np.ndarray


def make_case(length: int) -> Case:
    """Return a random sequence, always the same."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, LAYERS, length, HEADS, SIZE), np.float32)
    return Case(query, key, rng.random(length) < EFFECTS, rng.random(length) < CAUSES)


Call = Callable[[], tuple[float, list[np.ndarray]]]
"""Returns the loss, and its gradients with respect to queries and keys."""


def prepare_jax(case: Case, implementation: Implementation) -> Call:
    """Return the package's way: the causal mass of each layer, and the loss as a function of it."""
    effects, causes = case.effects_T, case.causes_T
    q_bits, k_bits = (jnp.asarray(x, jnp.uint32)[None, :, None] for x in (effects, causes))
    causal_count = jnp.asarray(np.where(effects, np.cumsum(causes), 0), jnp.int32)[None]
    visible_count = jnp.arange(1, len(effects) + 1, dtype=jnp.int32)[None]

    def layer_mass(query_QHC, key_KHC):
        values = query_QHC[None], key_KHC[None], jnp.zeros_like(key_KHC)[None]
        _, mass = causal_mass_attention(*values, q_bits, k_bits, implementation=implementation)
        assert mass is not None  # bits were given
        return mass

    def loss(query, key):
        mass_NBHT = jnp.stack([layer_mass(query[n], key[n]) for n in range(LAYERS)])
        return attention_guidance_loss(mass_NBHT, causal_count, visible_count, alpha=ALPHA)[0]

    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def call():
        value, gradients = jax.block_until_ready(function(case.query_NTHC, case.key_NTHC))
        return float(value), [np.asarray(x) for x in gradients]

    return call


def prepare_torch(case: Case) -> Call:
    """Return the way of the paper's code: full maps of all heads, their mean, a loop over its rows.

    Raises:
        InputError: torch is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("torch is missing: pip install -e '.[test]' on Python 3.11") from error

    length = len(case.effects_T)
    future = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    causes = torch.tensor(case.causes_T)

    def row_loss(i: int, row):
        marked, seen = causes[: i + 1], row[: i + 1]
        if not case.effects_T[i] or marked.all() or not marked.any():
            return None
        ratio = seen[marked].mean() / seen[~marked].mean()
        return torch.zeros(()) if ratio >= ALPHA else ALPHA - ratio

    def call():
        arrays = (case.query_NTHC, case.key_NTHC)
        query, key = (torch.tensor(x, requires_grad=True) for x in arrays)
        scores = torch.einsum("nqhc,nkhc->nhqk", query, key) * SIZE**-0.5
        maps = scores.masked_fill(future, -torch.inf).softmax(-1)
        rows = maps.mean((0, 1)).unbind(0)
        losses = [row_loss(i, row) for i, row in enumerate(rows)]
        loss = torch.stack([value for value in losses if value is not None]).mean()
        gradients = torch.autograd.grad(loss, (query, key))
        return loss.item(), [x.numpy() for x in gradients]

    return call


def check_agreement(results: Sequence[Result]) -> None:
    """Raise InputError unless all implementations have the same loss and gradient norm."""
    first = results[0]
    for other in results[1:]:
        for name in ("loss", "gradient_norm"):
            ours, theirs = getattr(other, name), getattr(first, name)
            if abs(ours - theirs) > 1e-3 * abs(theirs):
                raise InputError(
                    f"implementations differ at T = {first.length}: the {name} of "
                    f"{other.implementation} is {ours}, of {first.implementation} {theirs}"
                )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Task(**json.loads(sys.argv[1]))))))
