"""Time of a train step with and without guidance, measured in turn in one process."""

import time
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cat_jax.config import Guidance, MeshShape
from cat_jax.data.batches import Batch
from cat_jax.data.bitset import mask_counts
from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import make_mesh
from cat_jax.train.provenance import device_name
from cat_jax.train.state import new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import rates, step_flops
from experiments.benchmarking.sizes import Sizes
from pallas_kernels import select_implementation

EFFECTS, CAUSES = 1 / 4, 1 / 8
"""Shares of the positions that are annotated as effects and as causes."""


@dataclass(frozen=True)
class Result:
    """Measurement at one length.

    Attributes:
        device: Devices it was taken on.
        length: T, positions of a sequence.
        sequences: Sequences of a batch.
        attention: Attention implementation.
        plain_seconds: Median time of a plain step.
        cat_seconds: Median time of a step with guidance.
        ratio_low: Lower quartile of the ratio of CAT to plain, over pairs of steps.
        ratio: Its median.
        ratio_high: Its upper quartile.
        cat_rates: Throughput with guidance, see ``cat_jax.train.throughput.rates``.
    """

    device: str
    length: int
    sequences: int
    attention: str
    plain_seconds: float
    cat_seconds: float
    ratio_low: float
    ratio: float
    ratio_high: float
    cat_rates: dict[str, float]


def measure(
    sizes: Sizes, guidance: Guidance, *, length: int, sequences: int, samples: int
) -> Result:
    """Time plain and guided steps in turn, so that both see the same machine.

    Args:
        sizes: Model.
        guidance: Second objective of the guided step.
        length: T, positions of a sequence.
        sequences: Sequences of the batch.
        samples: Pairs of steps, after one pair that compiles and is not counted.

    Raises:
        InputError: There are no positions or sequences, or too few samples for quartiles.
    """
    least = {"length": (length, 1), "sequences": (sequences, 1), "samples": (samples, 2)}
    for name, (value, bound) in least.items():
        if value < bound:
            raise InputError(f"{name} must be at least {bound}, got {value}")
    config = model_config(sizes, length)
    batch = make_batch(sequences, length, config.vocab_size)
    plain, cat = Stepper(config, batch, None), Stepper(config, batch, guidance)
    pairs = [(plain.seconds(), cat.seconds()) for _ in range(samples + 1)][1:]
    plain_seconds, cat_seconds = (float(np.median(times)) for times in zip(*pairs, strict=True))
    low, ratio, high = quantiles([b / a for a, b in pairs], n=4, method="inclusive")
    tokens, visible = batch.tokens_BT.size, float(batch.visible_count_BT.sum())
    return Result(
        device=device_name(),
        length=length,
        sequences=sequences,
        attention=config.attention,
        plain_seconds=plain_seconds,
        cat_seconds=cat_seconds,
        ratio_low=low,
        ratio=ratio,
        ratio_high=high,
        cat_rates=rates(step_flops(config), tokens, tokens, visible, cat_seconds),
    )


def model_config(sizes: Sizes, length: int) -> ModelConfig:
    """Return the model's configuration; ``auto`` selects the attention for this length."""
    values: dict[str, Any] = dict(vars(sizes))
    if sizes.attention == "auto":
        selection = select_implementation(length, sizes.dtype, head_dim=sizes.head_dim)
        values["attention"] = selection.implementation
    return ModelConfig(**values)


class Stepper:
    """A train step with its state."""

    def __init__(self, config: ModelConfig, batch: Batch, guidance: Guidance | None):
        """Initialise the state; every stepper of a configuration has the same parameters."""
        mesh = make_mesh(MeshShape(), len(batch.tokens_BT))
        model, optimizer = CausalLM(config), optax.adamw(1e-5)
        params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
        gamma = None if guidance is None else optax.constant_schedule(guidance.weight)
        self._step = make_train_step(model, optimizer, mesh, guidance, gamma)
        self._state: Any = new_state(params, optimizer, mesh)
        self._batch = batch

    def seconds(self) -> float:
        """Take a step and return its time."""
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - start


def make_batch(sequences: int, length: int, vocabulary: int) -> Batch:
    """Return random sequences without padding; every token is a target."""
    rng = np.random.default_rng(0)
    shape = sequences, length
    tokens = rng.integers(0, vocabulary, shape).astype(np.int32)
    q_bits, k_bits = (
        (rng.random(shape) < share).astype(np.uint32)[..., None] for share in (EFFECTS, CAUSES)
    )
    counts = [mask_counts(q, k) for q, k in zip(q_bits, k_bits, strict=True)]
    causal, visible = (np.stack(column) for column in zip(*counts, strict=True))
    return Batch(tokens, np.ones(shape, bool), q_bits, k_bits, causal, visible)
