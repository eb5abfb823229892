"""What is to be planned: a model, how it is trained, and on how many devices along each axis."""

from dataclasses import dataclass
from typing import Literal

from cat_jax.errors import InputError
from cat_jax.models import LoraConfig, ModelConfig
from cat_jax.sharding import MeshShape

Tuned = Literal["all", "lora"]
"""All parameters, or adapters on a frozen model."""


@dataclass(frozen=True)
class Job:
    """One training step, before a mesh is chosen.

    Attributes:
        name: of the model.
        model: its configuration, with attention, remat and dtype of the run.
        tuned: what is trained.
        length: T, positions of a row.
        rows: of a step, over all chips.
        loss_chunk: positions of a row whose logits are in memory at a time.
    """

    name: str
    model: ModelConfig
    tuned: Tuned
    length: int
    rows: int
    loss_chunk: int

    @property
    def tokens(self) -> int:
        """Positions of a step."""
        return self.rows * self.length

    @property
    def lora(self) -> LoraConfig | None:
        """The adapters' form, if there are any."""
        return LoraConfig() if self.tuned == "lora" else None


@dataclass(frozen=True)
class Layout:
    """How the chips share a job.

    Attributes:
        data: copies of the model.
        fsdp: chips that share the parameters.
        tensor: chips that share heads, hidden units and vocabulary.
        context: chips that share the positions of a row.
        accumulate: parts of the rows that are computed one after the other.
    """

    data: int
    fsdp: int
    tensor: int
    context: int = 1
    accumulate: int = 1

    @property
    def mesh(self) -> MeshShape:
        """As ``train.mesh``."""
        return MeshShape(*self.sizes)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Along the axes of the mesh."""
        return self.data, self.fsdp, self.tensor, self.context

    @property
    def gathered_from(self) -> int:
        """Chips that a layer is gathered from when it is computed."""
        return self.fsdp * self.context

    @property
    def kept_by(self) -> int:
        """Chips that hold one copy of the state together."""
        return self.gathered_from * self.tensor

    def rows_at_once(self, job: Job) -> int:
        """Rows that a chip computes at a time, alone or with others (``tensor``, ``context``)."""
        return job.rows // (self.data * self.fsdp * self.accumulate)

    def positions_at_once(self, job: Job) -> float:
        """Positions that a chip computes at a time, alone or with others along ``tensor``."""
        return self.rows_at_once(job) * job.length / self.context

    def __str__(self) -> str:
        parts = f", {self.accumulate} parts" if self.accumulate > 1 else ""
        return " x ".join(map(str, self.sizes)) + parts


def layouts(
    job: Job, chips: int, mesh: MeshShape | None = None, accumulate: int | None = None
) -> list[Layout]:
    """Every way to share a job among all chips, or those with a given mesh or number of parts.

    Raises:
        InputError: there is none.
    """
    found = [
        layout
        for tensor in _divisors(chips)
        for context in _divisors(chips // tensor)
        for fsdp in _divisors(chips // (tensor * context))
        for parts in ([accumulate] if accumulate else _divisors(job.rows))
        if _divides(job, layout := _layout(chips, fsdp, tensor, context, parts))
    ]
    if mesh is not None:
        wanted = _layout(chips, mesh.fsdp, mesh.tensor, mesh.context).data
        given = (mesh.data or wanted, mesh.fsdp, mesh.tensor, mesh.context)
        found = [layout for layout in found if layout.sizes == given]
    if not found:
        model = job.model
        raise InputError(
            f"{f'mesh {mesh}' if mesh else 'no mesh'} shares {job.name} and {job.rows} rows among "
            f"{chips} chips: data x fsdp x tensor x context must be the chips, data x fsdp (x "
            f"accumulate) divide the rows, fsdp x context the model's width {model.width}, tensor "
            f"its {model.num_kv_heads} key/value heads, tensor x context its {model.num_heads} "
            f"query heads, context the {job.length} positions"
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
        and model.width % layout.gathered_from == 0
        and job.length % layout.context == 0
        and job.rows % (layout.data * layout.fsdp * layout.accumulate) == 0
    )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
