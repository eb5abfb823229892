"""Times training steps with and without the guidance of attention, one after the other.

Both steps train the same model on the same batch, in turn in one process, so that both see the
same machine. The ratio of each pair is taken; the table gives their median and quartiles.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from cat_jax.config import Guidance
from cat_jax.data.batches import Batch
from cat_jax.data.bitset import mask_counts
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import MeshShape, make_mesh
from cat_jax.train.state import new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import rates, step_flops
from experiments.command_line import exit_status

SMALL = ModelConfig(8_192, 512, 1_408, 4, 8, 2, 64, attention="xla_chunked")
EFFECTS, CAUSES = 1 / 4, 1 / 8
"""Shares of the tokens that are annotated."""


@dataclass(frozen=True)
class Args:
    """What to measure.

    Attributes:
        out: path of the results without suffix: OUT.json and OUT.md.
        lengths: T.
        rows: of a batch.
        samples: pairs of steps, after one pair that is not counted.
        model: its sizes and the implementation of its attention.
        guidance: the second objective.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    lengths: tuple[int, ...] = (512, 1_024)
    rows: int = 2
    samples: int = 10
    model: ModelConfig = SMALL
    guidance: Guidance = field(default_factory=lambda: Guidance(form="mass_nll", scope="head"))


@dataclass(frozen=True)
class Result:
    """Of rows of T tokens: median seconds of a step, and quartiles of CAT over plain."""

    device: str
    length: int
    rows: int
    plain_seconds: float
    cat_seconds: float
    ratio_low: float
    ratio: float
    ratio_high: float
    cat_rates: dict[str, float]


def main() -> None:
    """Measures and writes the table."""
    request = tyro.cli(Args, prog="python -m experiments.benchmark_step", description=__doc__)
    results = [measure(request, length) for length in request.lengths]
    request.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [vars(result) for result in results]
    request.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    request.out.with_suffix(".md").write_text(page(request, results))
    print(page(request, results))


def measure(request: Args, length: int) -> Result:
    """Times both steps on rows of this length."""
    batch = make_batch(request.rows, length, request.model.vocab_size)
    plain = Stepper(request.model, batch, None)
    cat = Stepper(request.model, batch, request.guidance)
    pairs = [(plain.seconds(), cat.seconds()) for _ in range(request.samples + 1)][1:]
    plain_seconds, cat_seconds = (float(np.median(times)) for times in zip(*pairs, strict=True))
    low, ratio, high = quantiles([b / a for a, b in pairs], n=4, method="inclusive")
    tokens, visible = batch.tokens_BT.size, float(batch.visible_count_BT.sum())
    speed = rates(step_flops(request.model), tokens, visible, cat_seconds)
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    seconds = plain_seconds, cat_seconds
    return Result(device, length, request.rows, *seconds, low, ratio, high, speed)


class Stepper:
    """A train step that goes on from its own state."""

    def __init__(self, config: ModelConfig, batch: Batch, guidance: Guidance | None):
        """Compiles; both objectives start from the same parameters."""
        mesh = make_mesh(MeshShape(), len(batch.tokens_BT))
        model, optimizer = CausalLM(config), optax.adamw(1e-5)
        params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        gamma = None if guidance is None else lambda step: 0.3 + 0.0 * step
        self._step = make_train_step(model, optimizer, mesh, guidance, gamma)
        self._state: Any = new_state(params, optimizer, mesh)
        self._batch = batch

    def seconds(self) -> float:
        """Takes a step and waits for it."""
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - start


def make_batch(rows: int, length: int, vocabulary: int) -> Batch:
    """Random rows without padding, all of which is to be predicted."""
    rng = np.random.default_rng(0)
    shape = rows, length
    tokens = rng.integers(0, vocabulary, shape).astype(np.int32)
    q_bits, k_bits = (
        (rng.random(shape) < share).astype(np.uint32)[..., None] for share in (EFFECTS, CAUSES)
    )
    counts = [mask_counts(q, k) for q, k in zip(q_bits, k_bits, strict=True)]
    causal, visible = (np.stack(column) for column in zip(*counts, strict=True))
    return Batch(tokens, np.ones(shape, bool), q_bits, k_bits, causal, visible)


def page(request: Args, results: list[Result]) -> str:
    """A Markdown table, a line per length."""
    model = request.model
    lines = ["# A training step with and without guidance", "", (__doc__ or "").strip(), ""]
    lines += ["| T | rows | plain, s | CAT, s | CAT / plain (quartiles) | CAT, tokens/s |"]
    lines += ["|" + " --- |" * 6]
    for r in results:
        lines.append(
            f"| {r.length} | {r.rows} | {r.plain_seconds:.3g} | {r.cat_seconds:.3g} | "
            f"{r.ratio:.3f} ({r.ratio_low:.3f} to {r.ratio_high:.3f}) | "
            f"{r.cat_rates['tokens_per_second']:,.0f} |"
        )
    lines += [
        "",
        f"{results[0].device}, jax {jax.__version__}; {model.num_layers} layers of width "
        f"{model.width}, {model.num_heads} heads ({model.num_kv_heads} of keys) of size "
        f"{model.head_dim}, vocabulary {model.vocab_size}, {model.dtype}, attention "
        f"`{model.attention}`, remat `{model.remat}`; a quarter of the rows have causes, an "
        f"eighth of the tokens are; {request.samples} pairs of steps.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
