"""Optimizer, training loop and mesh."""

from dataclasses import dataclass, field, fields

from cat_jax.data.alignment import Match
from cat_jax.errors import InputError


@dataclass(frozen=True)
class MeshShape:
    """Number of devices along each axis of the mesh (``cat_jax.sharding``).

    Attributes:
        data: Data-parallel replicas; None takes all devices that the other axes leave.
        fsdp: Devices that share the parameters; must divide the model's width.
        tensor: Devices that share heads, hidden units and vocabulary; must divide them.
        context: Devices that share the positions of a sequence; tensor x context must divide the
            query heads.
    """

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1
    context: int = 1

    def __post_init__(self):
        for name in MESH_AXES:
            size = getattr(self, name)
            if size is not None and size < 1:
                raise InputError(f"train.mesh.{name} must be at least 1, got {size}")

    def __str__(self) -> str:
        sizes = (self.data or "any", self.fsdp, self.tensor, self.context)
        return f"{' x '.join(map(str, sizes))} ({', '.join(MESH_AXES)})"


MESH_AXES = tuple(axis.name for axis in fields(MeshShape))


def check_positive(section: str, values: object, *names: str) -> None:
    """Raise InputError for the first of the fields that is not greater than 0."""
    for name in names:
        if not getattr(values, name) > 0:
            raise InputError(
                f"{section}.{name} must be greater than 0, got {getattr(values, name)}"
            )


@dataclass(frozen=True)
class Optimizer:
    """AdamW with linear warm-up, cosine decay to zero, and gradient clipping.

    Attributes:
        learning_rate: Peak learning rate.
        warmup: Warm-up, as a share of the steps.
        weight_decay: AdamW weight decay.
        clip: Largest global gradient norm.
        b2: Adam's beta2, the decay of the second moment.
    """

    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    b2: float = 0.999

    def __post_init__(self):
        check_positive("optimizer", self, "learning_rate", "clip")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"optimizer.warmup is a share from 0 to 1, got {self.warmup}")


@dataclass(frozen=True)
class Training:
    """The training loop.

    Attributes:
        steps: Optimizer steps.
        batch_size: Sequences per step, over all devices.
        max_length: Longest sequence in tokens; longer records are left out and counted.
        pack: Pack several records into each sequence of ``max_length`` tokens.
        accumulate: Gradient accumulation: micro-batches per step, which save memory; the step is
            the same.
        eval_every: Steps between evaluations.
        log_every: Steps between log lines.
        save_every: Steps between checkpoints.
        keep: Newest checkpoints kept, besides the best one.
        best: Evaluation metric that selects the returned parameters (lower is better for names
            that end in ``loss`` or ``perplexity``); None returns the last ones.
        patience: Evaluations without a better ``best`` after which training stops early; None
            never does.
        loss_chunk: Positions of each sequence whose logits are in memory at a time.
        match: Find annotated words by character ``offsets``, or as the published code
            (``reference``) does.
        deterministic: Compile for GPUs without operations whose bits differ from run to run, at
            some cost; CPUs and TPUs have none.
        profile: Folder for a profiler trace of three steps; None traces nothing.
        wandb_project: Weights & Biases project that receives the metrics too.
        mesh: How the devices share the work.
    """

    steps: int = 1_000
    batch_size: int = 64
    max_length: int = 256
    pack: bool = False
    accumulate: int = 1
    eval_every: int = 100
    log_every: int = 20
    save_every: int = 500
    keep: int = 2
    best: str | None = None
    patience: int | None = None
    loss_chunk: int = 128
    match: Match = "offsets"
    deterministic: bool = False
    profile: str | None = None
    wandb_project: str | None = None
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        sizes = ("steps", "batch_size", "accumulate", "loss_chunk", "max_length")
        check_positive("train", self, *sizes, "log_every", "eval_every", "save_every", "keep")
        if self.patience is not None:
            check_positive("train", self, "patience")
            if self.best is None:
                raise InputError("train.patience needs train.best, the value that must improve")
            if self.log_every > self.eval_every:  # or a run might end before its first line
                raise InputError(
                    f"train.log_every ({self.log_every}) must not exceed train.eval_every "
                    f"({self.eval_every}) where train.patience may end the run"
                )
        if self.batch_size % self.accumulate:
            raise InputError(
                f"train.accumulate ({self.accumulate}) must divide train.batch_size "
                f"({self.batch_size})"
            )
