"""Costs of a step in closed form: parameters, floating-point operations, kernel time, memory.

They stand in for what XLA's cost analysis leaves out (loop trip counts, kernels), and select the
layouts worth compiling.
"""

import math
from dataclasses import dataclass

from cat_jax.models.huggingface.tensors import KERNELS, axis_sizes, count_params, tensor_rules
from cat_jax.models.lora import count_adapters
from cat_jax.train.optimizer import moment_bytes
from cat_jax.train.throughput import step_flops
from experiments.planning.job import Job, Layout
from experiments.planning.slices import Chip

TILE = 1024
"""Side of the kernels' tiles, in positions."""
BUNDLES = {
    "v5e": ((4397, 4506), (5296, 5522), (7242, 7535)),
    "v5p": ((4266, 4488), (5430, 5523), (7281, 7495)),
    "v6e": ((2650, 3620), (3225, 3597), (4252, 4505)),
}
"""Instruction bundles per tile and core at head size 128, without and with the causal mass, of the
kernels for the output, d_query, and d_key with d_value; counted in the compiler's schedule."""
PRODUCTS = (2, 3, 4)
"""Matrix products per tile of each of the three kernels, which may take longer than the bundles."""
PER_TILE = 200
"""Cycles of overhead per tile."""


@dataclass(frozen=True)
class ParameterCounts:
    """Sizes of a model's parameters.

    Attributes:
        layers: Elements of the matrices of all layers.
        output: Elements of the output matrix, which may be the embedding.
        channels: Output channels of those matrices, each of which has a scale in int8.
        total: All elements of the model.
        adapters: Elements of the LoRA adapters, which ``total`` does not include.
    """

    layers: int
    output: int
    channels: int
    total: int
    adapters: int

    @property
    def multiplied(self) -> int:
        """Elements of the matrices that every token is multiplied by."""
        return self.layers + self.output


def parameter_counts(job: Job) -> ParameterCounts:
    """Return the sizes of the parameters, from the model's configuration alone."""
    model, sizes = job.model, axis_sizes(job.model)
    return ParameterCounts(
        layers=count_params(KERNELS.values(), sizes, model.num_layers),
        output=model.vocab_size * model.width,
        channels=model.num_layers * sum(rule.hf_shape(sizes)[0] for rule in KERNELS.values()),
        total=count_params(tensor_rules(model), sizes, model.num_layers),
        adapters=0 if job.lora is None else count_adapters(model, job.lora),
    )


def trained_parameters(job: Job) -> int:
    """Return the number of trained parameters: the model's, or the adapters'."""
    count = parameter_counts(job)
    return count.total if job.lora is None else count.adapters


def model_flops(job: Job) -> float:
    """Return the FLOPs that a step needs, as MFU counts them (``step_flops``)."""
    flops = step_flops(job.model, job.lora)
    pairs = job.sequences * job.length * (job.length + 1) / 2
    return (flops.per_token + flops.per_target) * job.tokens + flops.per_pair * pairs


def matmul_flops(job: Job, layout: Layout) -> float:
    """Return the FLOPs computed outside of the kernels, recomputed forward passes included.

    Logits are computed twice where those of a micro-batch do not fit their memory at once.
    """
    count = parameter_counts(job)
    passes = 6 if job.lora is None else 4
    layers = passes * count.layers + 6 * count.adapters
    if job.model.remat != "none":
        layers += 2 * (count.layers + count.adapters)
    is_cut = layout.positions_at_once(job) > job.piece
    output = passes * count.output + (2 * count.output if is_cut else 0)
    return (layers + output) * job.tokens


def kernel_seconds(job: Job, chip: Chip, chips: int, mass: bool) -> float:
    """Return the seconds per step that each chip spends in attention kernels, by their schedule.

    Every tile up to the diagonal costs its instruction bundles, or its products at the peak where
    those take longer. With the mass this is an upper bound: tiles whose queries and keys share no
    annotation cost no more than without it.
    """
    side = math.ceil(job.length / TILE)
    tiles = side * (side + 1) / 2 * job.sequences * job.model.num_heads * job.model.num_layers
    forward, d_query, d_keys = cycles_per_tile(chip, mass)
    again = forward if job.model.remat == "full" else 0
    heads = math.ceil(job.model.head_dim / 128)
    return tiles * heads * (forward + again + d_query + d_keys) / (chip.clock * chip.cores * chips)


def cycles_per_tile(chip: Chip, mass: bool) -> tuple[float, float, float]:
    """Return the cycles per tile and core of each of the three kernels at head size 128."""
    product = 2 * 128 * TILE**2 / (chip.flops / chip.clock / chip.cores)
    forward, d_query, d_keys = (
        max(bundles[mass], count * product) + PER_TILE
        for bundles, count in zip(BUNDLES[chip.name], PRODUCTS, strict=True)
    )
    return forward, d_query, d_keys


def memory(job: Job, layout: Layout) -> float:
    """Return the bytes that a chip needs, estimated without the compiler."""
    return sum(memory_parts(job, layout).values())


def memory_parts(job: Job, layout: Layout) -> dict[str, float]:
    """Return the bytes that a chip needs, by what they are for.

    ``frozen`` is the base under adapters. ``trained`` are the trained parameters, which exist once
    (in the train state), with the optimizer's moments and their gradient in float32 (two gradients
    with accumulation). ``working`` is what the layers keep for the backward pass; the working set
    of one layer, with all its matrices in bfloat16, gathered or dequantised; and the output matrix
    in bfloat16 with its gradient in float32, split by ``tensor`` only.
    """
    count, model = parameter_counts(job), job.model
    moments = moment_bytes(job.optimizer)
    gradients = 4 if layout.accumulate == 1 else 8
    output = (2 if job.lora is not None else 6) * count.output / layout.tensor
    layer = 2 * count.layers / model.num_layers / layout.tensor
    return {
        "frozen": frozen_bytes(job) / layout.state_shards,
        "trained": trained_parameters(job) * (4 + moments + gradients) / layout.state_shards,
        "working": output + layer + _activations(job, layout),
    }


def frozen_bytes(job: Job) -> float:
    """Return the bytes of the base under adapters, over all chips; 0 where there is none."""
    count = parameter_counts(job)
    if job.lora is None:
        return 0
    if job.frozen_dtype == "int8":
        return count.layers + 4 * count.channels + 2 * (count.total - count.layers)
    return count.total * {"bfloat16": 2, "float32": 4}[job.frozen_dtype]


def _activations(job: Job, layout: Layout) -> float:
    model = job.model
    positions = layout.positions_at_once(job)
    heads = model.num_heads * model.head_dim / layout.tensor
    keys = 2 * model.num_kv_heads * model.head_dim / layout.tensor
    hidden = model.mlp_width / layout.tensor
    kept = 2 * model.width
    if model.remat == "attention":
        kept += 2 * heads + 8 * model.num_heads / layout.tensor
    if model.remat == "none":
        kept += 2 * (3 * model.width + 2 * heads + keys + 3 * hidden)
    at_work = 2 * (2 * model.width + 2 * heads + keys + 3 * hidden)
    logits = 8 * min(job.piece, positions) * model.vocab_size / layout.tensor
    return positions * (kept * model.num_layers + at_work) + logits
