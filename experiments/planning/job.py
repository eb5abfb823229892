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
        accumulate: parts of the rows that are computed one after the other.
    """

    data: int
    fsdp: int
    tensor: int
    accumulate: int

    @property
    def mesh(self) -> MeshShape:
        """As ``train.mesh``."""
        return MeshShape(self.data, self.fsdp, self.tensor)

    @property
    def kept_by(self) -> int:
        """Chips that hold one copy of the state together."""
        return self.fsdp * self.tensor

    def rows_at_once(self, job: Job) -> int:
        """Rows that a chip computes at a time, alone or with others along ``tensor``."""
        return job.rows // (self.data * self.fsdp * self.accumulate)

    def __str__(self) -> str:
        parts = f", {self.accumulate} parts" if self.accumulate > 1 else ""
        return f"{self.data} x {self.fsdp} x {self.tensor}{parts}"


def layouts(
    job: Job, chips: int, mesh: MeshShape | None = None, accumulate: int | None = None
) -> list[Layout]:
    """Every way to share a job among all chips, or those with a given mesh or number of parts.

    Raises:
        InputError: there is none.
    """
    found = [
        Layout(chips // (fsdp * tensor), fsdp, tensor, parts)
        for tensor in _divisors(chips)
        for fsdp in _divisors(chips // tensor)
        for parts in ([accumulate] if accumulate else _divisors(job.rows))
        if _divides(job, Layout(chips // (fsdp * tensor), fsdp, tensor, parts))
    ]
    if mesh is not None:
        wanted = chips // (mesh.fsdp * mesh.tensor) if mesh.data is None else mesh.data
        given = (wanted, mesh.fsdp, mesh.tensor)
        found = [layout for layout in found if (layout.data, layout.fsdp, layout.tensor) == given]
    if not found:
        shape = f"mesh {mesh.data or 'any'} x {mesh.fsdp} x {mesh.tensor}" if mesh else "no mesh"
        raise InputError(
            f"{shape} shares {job.name} and {job.rows} rows among {chips} chips: data x fsdp x "
            "tensor must be the chips, data x fsdp (x accumulate) divide the rows, fsdp the "
            f"model's width {job.model.width}, tensor its {job.model.num_kv_heads} key/value heads"
        )
    return found


def _divides(job: Job, layout: Layout) -> bool:
    model = job.model
    sizes = (model.num_heads, model.num_kv_heads, model.mlp_width, model.vocab_size)
    return (
        all(size % layout.tensor == 0 for size in sizes)
        and model.width % layout.fsdp == 0
        and job.rows % (layout.data * layout.fsdp * layout.accumulate) == 0
    )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
