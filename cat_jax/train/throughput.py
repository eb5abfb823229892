"""Throughput of training: tokens per second and model FLOPs utilisation (MFU)."""

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
"""Peak FLOP/s of a device in dense bfloat16 matrix products, by how its kind begins, from the
makers' data sheets."""

TIMINGS = ("seconds_per_step", "input_wait", "tokens_per_second", "mfu", "elapsed_seconds")
"""The values of a log line that differ from run to run."""


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of a training step, as MFU counts them.

    Those of the matrix products that the model needs, forward and backward; rematerialisation does
    not count (PaLM, Chowdhery et al. 2022, appendix B).

    Attributes:
        per_token: FLOPs per token, without the output matrix.
        per_target: FLOPs per target token, of the output matrix.
        per_pair: FLOPs per visible pair of a query and a key.
    """

    per_token: float
    per_target: float
    per_pair: float


def step_flops(config: ModelConfig, lora: LoraConfig | None = None) -> StepFlops:
    """Return the FLOPs of a step that trains all parameters, or adapters.

    A product with a matrix of P parameters takes 2 P operations per token forward, as many for
    the gradient of its input, and as many for that of the matrix, unless it is frozen.
    """
    matrices = [rule for rule in tensor_rules(config) if rule.path.endswith("kernel")]
    weights = count_params(matrices, axis_sizes(config), config.num_layers)
    output = config.vocab_size * config.width
    if not config.tie_embeddings:  # else it is the table of the embedding, which is no kernel
        weights -= output
    passes, adapters = (6.0, 0) if lora is None else (4.0, count_adapters(config, lora))
    per_token = passes * weights + 6.0 * adapters
    return StepFlops(
        per_token, passes * output, 12.0 * config.num_layers * config.num_heads * config.head_dim
    )


def rates(
    flops: StepFlops, tokens: float, targets: float, pairs: float, seconds: float
) -> dict[str, float]:
    """Return ``tokens_per_second`` and, on devices of ``PEAK_FLOPS``, ``mfu``.

    Args:
        flops: FLOPs of a step.
        tokens: Tokens that are not padding, of all devices.
        targets: Those that are predicted.
        pairs: Visible pairs of a query and a key.
        seconds: Time that they took.
    """
    values = {"tokens_per_second": tokens / seconds}
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAK_FLOPS.items() if kind.startswith(name)), None)
    if peak is not None:
        operations = flops.per_token * tokens + flops.per_target * targets + flops.per_pair * pairs
        values["mfu"] = operations / (seconds * peak * jax.device_count())
    return values


class StepTimer:
    """Times steps and counts their tokens, from one log line to the next."""

    def __init__(self, flops: StepFlops):
        """Take the FLOPs of a step and start the clock."""
        self._flops = flops
        self._seconds: list[float] = []
        self._amounts: list[tuple[float, float, float]] = []
        self._waited = 0.0
        self.start()

    def start(self) -> None:
        """Begin a step now; time since the last one does not count."""
        self._begun = time.perf_counter()

    def wait_for_input(self, seconds: float) -> None:
        """Add time in which the device was idle, waiting for data."""
        self._waited += seconds

    def end_step(self, tokens: float, targets: float, pairs: float) -> None:
        """End a step that read so many tokens, targets and pairs, and begin the next one."""
        now = time.perf_counter()
        self._seconds.append(now - self._begun)
        self._amounts.append((tokens, targets, pairs))
        self._begun = now

    def take(self) -> dict[str, float]:
        """Return ``seconds_per_step``, ``input_wait`` (a share) and ``rates``, and start anew.

        The seconds are a median, so that the step that compiles does not count.
        """
        seconds = median(self._seconds)
        tokens, targets, pairs = (fmean(column) for column in zip(*self._amounts, strict=True))
        wait = min(1.0, self._waited / sum(self._seconds))
        self._seconds, self._amounts, self._waited = [], [], 0.0
        return {"seconds_per_step": seconds, "input_wait": wait} | rates(
            self._flops, tokens, targets, pairs, seconds
        )
