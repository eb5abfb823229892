"""A training step to plan, and the layouts in which chips can share it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cat_jax.config import FrozenDtype, LoraConfig, MeshShape, Optimizer
from cat_jax.errors import InputError
from cat_jax.losses.budget import tokens_at_once
from cat_jax.models import ModelConfig

Tuned = Literal["all", "lora"]
"""Trained parameters: all, or adapters on a frozen model."""


@dataclass(frozen=True)
class Job:
    """One training step, before a mesh is chosen.

    Attributes:
        name: Name of the model.
        model: Its configuration, with the run's attention, remat and dtype.
        tuned: Trained parameters.
        length: T, positions of a sequence.
        sequences: Sequences per step, over all chips.
        logits_mib: Memory for the logits of a chip at a time, in MiB of float32. All positions
            are taken for targets.
        optimizer: Optimizer, whose moments take memory.
        frozen_dtype: Dtype of the frozen model under adapters.
    """

    name: str
    model: ModelConfig
    tuned: Tuned
    length: int
    sequences: int
    logits_mib: int
    optimizer: Optimizer = Optimizer()  # noqa: RUF009, it is frozen
    frozen_dtype: FrozenDtype = "bfloat16"

    @property
    def trained(self) -> str:
        """Return what is trained, as tables show it."""
        usual = self.tuned == "all" or self.frozen_dtype == "bfloat16"
        return self.tuned if usual else f"{self.tuned} on {self.frozen_dtype}"

    @property
    def piece(self) -> int:
        """Return the tokens whose logits a chip computes at a time."""
        return tokens_at_once(self.model.vocab_size, self.logits_mib)

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.sequences * self.length

    @property
    def lora(self) -> LoraConfig | None:
        """Configuration of the adapters; None where all parameters are trained."""
        return LoraConfig() if self.tuned == "lora" else None


@dataclass(frozen=True)
class Layout:
    """How chips share a job: a mesh, and micro-batches.

    Attributes:
        data: Data-parallel replicas.
        fsdp: Chips that share the parameters.
        tensor: Chips that share heads, hidden units and vocabulary.
        context: Chips that share the positions of a sequence.
        accumulate: Gradient accumulation: micro-batches per step.
    """

    data: int
    fsdp: int
    tensor: int
    context: int = 1
    accumulate: int = 1

    @property
    def mesh(self) -> MeshShape:
        """The mesh, as ``train.mesh`` takes it."""
        return MeshShape(*self.sizes)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Chips along each axis of the mesh."""
        return self.data, self.fsdp, self.tensor, self.context

    @property
    def gather_group(self) -> int:
        """Chips from which a layer is gathered when it is computed."""
        return self.fsdp * self.context

    @property
    def state_shards(self) -> int:
        """Chips that together hold one copy of the train state."""
        return self.gather_group * self.tensor

    def sequences_at_once(self, job: Job) -> int:
        """Return the sequences in a chip's micro-batch, shared along ``tensor`` and ``context``."""
        return job.sequences // (self.data * self.fsdp * self.accumulate)

    def positions_at_once(self, job: Job) -> float:
        """Return the positions in a chip's micro-batch, shared along ``tensor``."""
        return self.sequences_at_once(job) * job.length / self.context

    def __str__(self) -> str:
        return layout_text(self.sizes, self.accumulate)


def layout_text(sizes: Sequence[int], accumulate: int) -> str:
    """Return a layout as tables show it: ``2 x 4 x 1 x 8, 3 micro-batches``."""
    parts = f", {accumulate} micro-batches" if accumulate > 1 else ""
    return " x ".join(map(str, sizes)) + parts


def layouts(
    job: Job, chips: int, mesh: MeshShape | None = None, accumulate: int | None = None
) -> list[Layout]:
    """Return all layouts that share a job among all chips.

    Args:
        job: Job to share.
        chips: Number of chips.
        mesh: Only layouts with this mesh.
        accumulate: Only layouts with this number of micro-batches.

    Raises:
        InputError: There is none.
    """
    found = [
        layout
        for tensor in _divisors(chips)
        for context in _divisors(chips // tensor)
        for fsdp in _divisors(chips // (tensor * context))
        for parts in ([accumulate] if accumulate else _divisors(job.sequences))
        if _divides(job, layout := _layout(chips, fsdp, tensor, context, parts))
    ]
    if mesh is not None:
        wanted = _layout(chips, mesh.fsdp, mesh.tensor, mesh.context).data
        given = (mesh.data or wanted, mesh.fsdp, mesh.tensor, mesh.context)
        found = [layout for layout in found if layout.sizes == given]
    if not found:
        model = job.model
        raise InputError(
            f"{f'mesh {mesh}' if mesh else 'no mesh'} shares {job.name} and {job.sequences} "
            f"sequences among {chips} chips: data x fsdp x tensor x context must equal the chips, "
            f"data x fsdp x accumulate must divide the sequences, fsdp x context the model's width "
            f"{model.width}, tensor its {model.num_kv_heads} key/value heads, tensor x context its "
            f"{model.num_heads} query heads, context the {job.length} positions"
        )
    return found


def _layout(chips: int, fsdp: int, tensor: int, context: int, accumulate: int = 1) -> Layout:
    return Layout(chips // (fsdp * tensor * context), fsdp, tensor, context, accumulate)


def _divides(job: Job, layout: Layout) -> bool:
    model = job.model
    sizes = (model.num_heads, model.num_kv_heads, model.mlp_width, model.vocab_size)
    return (
        all(size % layout.tensor == 0 for size in sizes)
        and model.num_heads % (layout.tensor * layout.context) == 0
        and model.width % layout.gather_group == 0
        and job.length % layout.context == 0
        and job.sequences % (layout.data * layout.fsdp * layout.accumulate) == 0
    )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
