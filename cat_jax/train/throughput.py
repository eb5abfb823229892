"""How fast training is: in tokens, and as the share of the arithmetic that the devices can do."""

import time
from dataclasses import dataclass
from statistics import fmean, median

import jax

from cat_jax.models import LoraConfig, ModelConfig
from cat_jax.models.huggingface.tensors import axis_sizes, count_params, tensor_rules
from cat_jax.models.lora import count_adapters

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Floating point operations a second of a device in dense bfloat16 matrix products, by how its
kind begins, from the makers' data sheets."""

TIMINGS = ("seconds_per_step", "input_wait", "tokens_per_second", "mfu")
"""What a ``StepTimer`` adds to a line of the log: the only values that differ from run to run."""


@dataclass(frozen=True)
class StepFlops:
    """Floating point operations of a training step, as MFU counts them.

    Those of the matrix products that the model needs, forward and backward; what is computed
    again to save memory does not count (PaLM, Chowdhery et al. 2022, appendix B).

    Attributes:
        per_token: of each token.
        per_pair: of each pair of a query and a key that it sees.
    """

    per_token: float
    per_pair: float


def step_flops(config: ModelConfig, lora: LoraConfig | None = None) -> StepFlops:
    """What a step of training all parameters, or adapters, computes.

    A product with a matrix of P parameters takes 2 P operations per token forward, as many for
    the gradient of its input, and as many for that of the matrix, unless it is frozen.
    """
    matrices = [rule for rule in tensor_rules(config) if rule.path.endswith("kernel")]
    weights = count_params(matrices, axis_sizes(config), config.num_layers)
    if config.tie_embeddings:  # the table of the embedding is the output matrix, too
        weights += config.vocab_size * config.width
    per_token = 6.0 * weights
    if lora is not None:
        per_token = 4.0 * weights + 6.0 * count_adapters(config, lora)
    return StepFlops(per_token, 12.0 * config.num_layers * config.num_heads * config.head_dim)


def rates(work: StepFlops, tokens: float, pairs: float, seconds: float) -> dict[str, float]:
    """``tokens_per_second`` and, on devices of ``PEAK_FLOPS``, ``mfu``.

    Args:
        work: of a step.
        tokens: that are not padding, of all devices.
        pairs: of a query and a key that it sees.
        seconds: that they took.
    """
    values = {"tokens_per_second": tokens / seconds}
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)), None)
    if peak is not None:
        operations = work.per_token * tokens + work.per_pair * pairs
        values["mfu"] = operations / (seconds * peak * jax.device_count())
    return values


class StepTimer:
    """Collects what steps took and read, from one line of the log to the next."""

    def __init__(self, work: StepFlops):
        """Takes the work of a step; the clock runs."""
        self._work = work
        self._seconds: list[float] = []
        self._amounts: list[tuple[float, float]] = []
        self._waited = 0.0
        self.start()

    def start(self) -> None:
        """The next step begins now: what was done since the last one does not count."""
        self._begun = time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Notes for how long the device had nothing to do but wait for data."""
        self._waited += seconds

    def ended(self, tokens: float, pairs: float) -> None:
        """Notes that a step has ended, and what it read; the next one begins."""
        now = time.perf_counter()
        self._seconds.append(now - self._begun)
        self._amounts.append((tokens, pairs))
        self._begun = now

    def take(self) -> dict[str, float]:
        """``seconds_per_step``, ``input_wait`` (a share) and ``rates``; then starts anew.

        The step that compiles is one of many: the seconds are their median.
        """
        seconds = median(self._seconds)
        tokens, pairs = (fmean(column) for column in zip(*self._amounts, strict=True))
        wait = min(1.0, self._waited / sum(self._seconds))
        self._seconds, self._amounts, self._waited = [], [], 0.0
        return {"seconds_per_step": seconds, "input_wait": wait} | rates(
            self._work, tokens, pairs, seconds
        )
