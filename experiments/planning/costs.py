"""What a step costs, in closed form: parameters, floating-point operations, kernels, memory.

Used to count what XLA does not (turns of loops, kernels), and to choose what is worth compiling.
"""

import math
from dataclasses import dataclass

from cat_jax.models.huggingface.tensors import axis_sizes, count_params, tensor_rules
from cat_jax.models.lora import KERNELS, count_adapters
from cat_jax.train.throughput import step_flops
from experiments.planning.job import Job, Layout
from experiments.planning.slices import Chip

TILE = 1024
"""Positions of a side of the kernels' tiles."""
BUNDLES = {
    "v5e": ((4397, 4506), (5296, 5522), (7242, 7535)),
    "v5p": ((4266, 4488), (5430, 5523), (7281, 7495)),
    "v6e": ((2650, 3620), (3225, 3597), (4252, 4505)),
}
"""Instructions of a core per tile at head size 128, without and with the mass: forward, d_query,
d_key with d_value (``mosaic_tpu.py``, counted in what the compiler schedules)."""
PRODUCTS = (2, 3, 4)
"""Matrix products of each of the three kernels; they may take the matrix unit longer than that."""
PER_TILE = 200
"""Instructions that every tile costs besides."""


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model has.

    Attributes:
        layers: in the matrices of all layers.
        output: in the matrix that makes logits, which may be the embedding.
        total: all of them.
        adapters: trained besides, with LoRA.
    """

    layers: int
    output: int
    total: int
    adapters: int

    @property
    def multiplied(self) -> int:
        """Those that every token is multiplied by."""
        return self.layers + self.output


def parameters(job: Job) -> Parameters:
    """Counted from the configuration."""
    model, sizes = job.model, axis_sizes(job.model)
    return Parameters(
        layers=count_params(KERNELS.values(), sizes, model.num_layers),
        output=model.vocab_size * model.width,
        total=count_params(tensor_rules(model), sizes, model.num_layers),
        adapters=0 if job.lora is None else count_adapters(model, job.lora),
    )


def model_flops(job: Job) -> float:
    """What a step must compute: the definition of MFU."""
    work = step_flops(job.model, job.lora)
    pairs = job.rows * job.length * (job.length + 1) / 2
    return work.per_token * job.tokens + work.per_pair * pairs


def matmul_flops(job: Job) -> float:
    """What is computed outside of the kernels: forward passes that remat repeats as well.

    Logits are computed twice whenever a row has more positions than a chunk.
    """
    count = parameters(job)
    passes = 6 if job.lora is None else 4
    layers = passes * count.layers + 6 * count.adapters
    if job.model.remat != "none":
        layers += 2 * (count.layers + count.adapters)
    output = passes * count.output + (2 * count.output if job.length > job.loss_chunk else 0)
    return (layers + output) * job.tokens


def kernel_seconds(job: Job, chip: Chip, chips: int, mass: bool) -> float:
    """Of the attention kernels of one step on one of the chips, from their schedule.

    Every tile up to the diagonal costs its instructions, or its products at the peak where those
    take longer. With the mass it is an upper bound: tiles whose queries and keys share no
    annotation cost no more than without.
    """
    side = math.ceil(job.length / TILE)
    tiles = side * (side + 1) / 2 * job.rows * job.model.num_heads * job.model.num_layers
    forward, d_query, d_keys = cycles_per_tile(chip, mass)
    again = forward if job.model.remat == "full" else 0
    heads = math.ceil(job.model.head_dim / 128)
    return tiles * heads * (forward + again + d_query + d_keys) / (chip.clock * chip.cores * chips)


def cycles_per_tile(chip: Chip, mass: bool) -> tuple[float, float, float]:
    """Of a core, for each of the three kernels at head size 128."""
    product = 2 * 128 * TILE**2 / (chip.flops / chip.clock / chip.cores)
    forward, d_query, d_keys = (
        max(bundles[mass], count * product) + PER_TILE
        for bundles, count in zip(BUNDLES[chip.name], PRODUCTS, strict=True)
    )
    return forward, d_query, d_keys


def memory(job: Job, layout: Layout) -> float:
    """Bytes a chip needs at least, before the compiler is asked.

    Trained parameters with both moments and their gradient in float32 (twice when gradients are
    added up); a frozen base in bfloat16; what the layers keep for the backward pass; one layer at
    work; and the output matrix in bfloat16 with its gradient in float32, whole but for ``tensor``.
    """
    count, model = parameters(job), job.model
    trained = count.total if job.lora is None else count.adapters
    gradients = 4 if layout.accumulate == 1 else 8
    state = trained * (12 + gradients) / layout.kept_by
    if job.lora is not None:
        state += 2 * count.total / layout.kept_by
    output = (2 if job.lora is not None else 6) * count.output / layout.tensor
    layer = 2 * count.layers / model.num_layers / layout.tensor
    return state + output + layer + _activations(job, layout)


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
    chunk = min(layout.rows_at_once(job) * job.loss_chunk, positions)
    logits = 8 * chunk * model.vocab_size / layout.tensor
    return positions * (kept * model.num_layers + at_work) + logits
