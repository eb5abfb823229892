"""How long a step may take: a roofline over compute, memory and links, never a measurement.

``at_best`` lets all three overlap; ``no_overlap`` adds them up. Matrix products run at the peak,
kernels as scheduled, memory and links at their full rate; a ring of chips uses one link in each
direction, as the compiler's rings do. Real steps are slower than ``at_best``.
"""

from dataclasses import dataclass

from cat_jax.models.lora import KERNELS
from experiments.planning.costs import kernel_seconds, matmul_flops, model_flops, parameters
from experiments.planning.job import Job, Layout
from experiments.planning.slices import Slice

HOP = 1e-6
"""Seconds from a chip to its neighbour, roughly ("How to Scale Your Model", Austin et al. 2025)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step.

    Attributes:
        matmul: matrix products at the peak.
        kernels: attention, by its schedule.
        hbm: state and gathered parameters through memory.
        links: what the chips receive from each other.
        flops: that the model needs, over all chips.
        peak: of all chips, per second.
    """

    matmul: float
    kernels: float
    hbm: float
    links: float
    flops: float
    peak: float

    @property
    def at_best(self) -> float:
        """Everything overlaps."""
        return max(self.matmul + self.kernels, self.hbm, self.links)

    @property
    def no_overlap(self) -> float:
        """Nothing does."""
        return self.matmul + self.kernels + self.hbm + self.links

    def mfu(self, seconds: float) -> float:
        """The share of the peak that the model's own operations take."""
        return self.flops / seconds / self.peak


def estimate(job: Job, layout: Layout, slice_: Slice, mass: bool, received: float) -> Estimate:
    """The roofline of a step in which each chip receives so many bytes."""
    chip, chips = slice_.chip, slice_.chips
    return Estimate(
        matmul=matmul_flops(job) / chips / chip.flops,
        kernels=kernel_seconds(job, chip, chips, mass),
        hbm=hbm_bytes(job, layout) / chip.hbm_bandwidth,
        links=received / (2 * chip.link_bandwidth),
        flops=model_flops(job),
        peak=chips * chip.flops,
    )


def hbm_bytes(job: Job, layout: Layout) -> float:
    """What must pass through the memory of a chip at least.

    The optimizer reads parameter, moments and gradient and writes three of them; every pass over
    the layers writes the gathered matrices and reads them; and activations are written and read.
    """
    count, model = parameters(job), job.model
    trained = count.total if job.lora is None else count.adapters
    passes = (2 if model.remat == "none" else 3) * layout.accumulate
    gathered = 4 * passes * count.multiplied / layout.tensor
    width = (
        4 * model.width
        + (2 * model.num_heads * model.head_dim + 3 * model.mlp_width) / layout.tensor
    )
    positions = layout.positions_at_once(job) * layout.accumulate
    activations = 4 * passes / layout.accumulate * positions * model.num_layers * width
    return 28 * trained / layout.kept_by + gathered + activations


def expected_seconds(job: Job, layout: Layout, slice_: Slice) -> tuple[float, float]:
    """What layouts are ranked by before any is compiled, and between equals.

    Layers can be gathered and gradients scattered beside the products; the sums of ``tensor``
    are waited for. A ring of many chips also takes time for its hops, half of them either way.
    """
    gathered, summed = expected_received(job, layout)
    chip = estimate(job, layout, slice_, True, gathered)
    waited = summed / (2 * slice_.chip.link_bandwidth)
    rings = len(KERNELS) * job.model.num_layers * 3 * layout.accumulate
    hops = rings * (layout.gathered_from - 1) / 2 * HOP
    return chip.at_best + waited, chip.no_overlap + waited + hops


def expected_received(job: Job, layout: Layout) -> tuple[float, float]:
    """Bytes that a chip receives in a step, of parameters and gradients, and of activations.

    Layers are gathered in bfloat16 once forward and once backward and their gradients scattered in
    float32; copies of the model add theirs up; ``tensor`` sums activations twice a layer and pass.
    ``context`` exchanges queries, keys, values and outputs, or their gradients, once in each.
    Of the output matrix the gradient is summed whole.
    """
    count, model = parameters(job), job.model
    data, shards, tensor = layout.data, layout.gathered_from, layout.tensor
    times, gradient = layout.accumulate, job.lora is None
    layers = (4 + 4 * gradient) * times * count.layers / tensor * _others(shards)
    summed = 8 * gradient * _others(data * shards)
    output = (2 * _others(shards) + summed) * times * count.output / tensor
    trained = count.layers if gradient else count.adapters
    copies = 8 * trained / layout.kept_by * _others(data) * times
    passes = 2 if model.remat == "none" else 3
    values = 2 * layout.positions_at_once(job) * times * model.num_layers * passes
    sums = 4 * values * model.width * _others(tensor)
    heads = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim / tensor
    exchanged = values * heads * _others(layout.context)
    return layers + output + copies, sums + exchanged


def _others(chips: int) -> float:
    """The share of something that is with the others."""
    return (chips - 1) / chips
