"""Estimated time of a step: a roofline over compute, HBM and links, never a measurement.

Matrix products run at the peak, kernels as scheduled, HBM and links at their full bandwidth; a ring
of chips uses one link in each direction, as the compiler's rings do. The two bounds let these parts
overlap fully or not at all; real steps take longer than the first.
"""

from dataclasses import dataclass

from cat_jax.models.huggingface.tensors import KERNELS
from cat_jax.train.optimizer import moment_bytes
from experiments.planning.costs import (
    kernel_seconds,
    matmul_flops,
    model_flops,
    parameter_counts,
    trained_parameters,
)
from experiments.planning.job import Job, Layout
from experiments.planning.slices import Slice

HOP = 1e-6
"""Rough latency in seconds from a chip to its neighbour ("How to Scale Your Model", Austin et al.
2025)."""


@dataclass(frozen=True)
class Estimate:
    """Estimated time of a step, in seconds where nothing else is said.

    Attributes:
        matmul: Matrix products outside of the attention kernels.
        kernels: Attention kernels.
        hbm: Traffic of state, gathered parameters and activations through HBM.
        links: Traffic between chips.
        flops: Model FLOPs of the step, over all chips.
        peak: Peak FLOP/s of all chips.
    """

    matmul: float
    kernels: float
    hbm: float
    links: float
    flops: float
    peak: float

    @property
    def full_overlap(self) -> float:
        """Seconds of a step whose compute, HBM and links overlap."""
        return max(self.matmul + self.kernels, self.hbm, self.links)

    @property
    def no_overlap(self) -> float:
        """Seconds of a step in which nothing overlaps."""
        return self.matmul + self.kernels + self.hbm + self.links

    def mfu(self, seconds: float) -> float:
        """Return the model FLOPs utilization of a step that takes ``seconds``."""
        return self.flops / seconds / self.peak


def estimate(job: Job, layout: Layout, slice_: Slice, mass: bool, received: float) -> Estimate:
    """Return the roofline of a step in which each chip receives ``received`` bytes."""
    chip, chips = slice_.chip, slice_.chips
    return Estimate(
        matmul=matmul_flops(job, layout) / chips / chip.flops,
        kernels=kernel_seconds(job, chip, chips, mass),
        hbm=hbm_bytes(job, layout) / chip.hbm_bandwidth,
        links=received / (2 * chip.link_bandwidth),
        flops=model_flops(job),
        peak=chips * chip.flops,
    )


def hbm_bytes(job: Job, layout: Layout) -> float:
    """Return the bytes that must at least pass through a chip's HBM in a step.

    The optimizer reads parameter, moments and gradient and writes all but the gradient; every pass
    over the layers writes the gathered matrices and reads them; activations are written and read.
    """
    count, model = parameter_counts(job), job.model
    passes = (2 if model.remat == "none" else 3) * layout.accumulate
    gathered = 4 * passes * count.multiplied / layout.tensor
    width = (
        4 * model.width
        + (2 * model.num_heads * model.head_dim + 3 * model.mlp_width) / layout.tensor
    )
    positions = layout.positions_at_once(job) * layout.accumulate
    activations = 4 * passes / layout.accumulate * positions * model.num_layers * width
    updated = (12 + 2 * moment_bytes(job.optimizer)) * trained_parameters(job)
    return updated / layout.state_shards + gathered + activations


def expected_seconds(job: Job, layout: Layout, slice_: Slice) -> tuple[float, float]:
    """Return the two bounds that rank layouts before any is compiled: full and no overlap.

    All-gathers of layers and reduce-scatters of gradients can overlap with matrix products; the
    all-reduces of ``tensor`` and the all-to-alls of ``context`` cannot. The second bound adds the
    latency of the hops of every ring, half of them in each direction.
    """
    overlapping, exposed = expected_received(job, layout)
    bounds = estimate(job, layout, slice_, True, overlapping)
    waited = exposed / (2 * slice_.chip.link_bandwidth)
    rings = len(KERNELS) * job.model.num_layers * 3 * layout.accumulate
    hops = rings * (layout.gather_group - 1) / 2 * HOP
    return bounds.full_overlap + waited, bounds.no_overlap + waited + hops


def expected_received(job: Job, layout: Layout) -> tuple[float, float]:
    """Return the bytes a chip receives in a step: parameters with gradients, and activations.

    Layers are gathered in bfloat16 once forward and once backward, and their gradients
    reduce-scattered in float32; data-parallel replicas all-reduce gradients; ``tensor`` all-reduces
    activations twice per layer and pass; ``context`` exchanges queries, keys, values and outputs,
    or their gradients, once per layer and pass. The output matrix's gradient is all-reduced whole.
    """
    count, model = parameter_counts(job), job.model
    data, group, tensor = layout.data, layout.gather_group, layout.tensor
    times, gradient = layout.accumulate, job.lora is None
    layers = (4 + 4 * gradient) * times * count.layers / tensor * _remote_share(group)
    summed = 8 * gradient * _remote_share(data * group)
    output = (2 * _remote_share(group) + summed) * times * count.output / tensor
    trained = count.layers if gradient else count.adapters
    replicas = 8 * trained / layout.state_shards * _remote_share(data) * times
    passes = 2 if model.remat == "none" else 3
    values = 2 * layout.positions_at_once(job) * times * model.num_layers * passes
    sums = 4 * values * model.width * _remote_share(tensor)
    heads = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim / tensor
    exchanged = values * heads * _remote_share(layout.context)
    return layers + output + replicas, sums + exchanged


def _remote_share(chips: int) -> float:
    """Return the share of an evenly split array that lies on the other chips."""
    return (chips - 1) / chips
