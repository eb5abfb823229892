"""Optimizer, training loop and mesh."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

from cat_jax.config.model import Dtype
from cat_jax.data.alignment import Match
from cat_jax.errors import SettingError
from cat_jax.ranges import INT32_MAX, Count, Range, Share, check_ranges

OptimizerName = Literal["adamw", "lion", "adafactor"]
LearningRateSchedule = Literal["cosine", "constant"]


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

    data: Count | None = None
    fsdp: Count = 1
    tensor: Count = 1
    context: Count = 1

    def __post_init__(self):
        check_ranges(self, "train.mesh")

    def __str__(self) -> str:
        sizes = (self.data or "any", self.fsdp, self.tensor, self.context)
        return f"{' x '.join(map(str, sizes))} ({', '.join(MESH_AXES)})"


MESH_AXES = tuple(axis.name for axis in fields(MeshShape))


@dataclass(frozen=True)
class Optimizer:
    """AdamW or one of less memory, with linear warm-up, cosine decay or none, and clipping.

    Attributes:
        learning_rate: Peak learning rate.
        schedule: Learning rate after the warm-up: ``cosine`` decays to zero at the last step,
            ``constant`` stays, so that a finished run can be extended to more steps.
        warmup: Warm-up, as a share of the steps.
        warmup_steps: Warm-up in steps instead of a share.
        weight_decay: Decoupled weight decay, times the learning rate, of matrices and embeddings;
            norm scales and biases do not decay.
        decay_all: Let norm scales and biases decay too.
        clip: Largest global gradient norm; inf clips nothing.
        b2: Decay of AdamW's second moment, or of Lion's moment; ``adafactor`` has its own.
        name: ``adamw`` (Loshchilov & Hutter 2019), two moments per parameter; ``lion`` (Chen et al.
            2023), one, at a third to a tenth of AdamW's learning rate; ``adafactor`` (Shazeer &
            Stern 2018), a row and a column per matrix, whose learning rate is relative to the size
            of the parameters.
        mu_dtype: Dtype of the first moment, as in optax; ``adafactor`` has none.
    """

    learning_rate: Annotated[float, Range(gt=0, le=100)] = 1e-3
    schedule: LearningRateSchedule = "cosine"
    warmup: Share = 0.1
    warmup_steps: Annotated[int, Range(ge=0, le=INT32_MAX)] | None = None
    weight_decay: Annotated[float, Range(ge=0, le=10**6)] = 0.0
    decay_all: bool = False
    clip: Annotated[float, Range(gt=0, le=math.inf)] = 1.0
    # 1 - b2 is float32: closer to 1 it is 0, and where a gradient is 0 the update is 0 / 0.
    b2: Annotated[float, Range(ge=0, le=0.999999)] = 0.999
    name: OptimizerName = "adamw"
    mu_dtype: Dtype = "float32"

    def __post_init__(self):
        check_ranges(self, "optimizer")
        if self.name == "adafactor" and self.mu_dtype != "float32":
            raise SettingError(
                "optimizer.mu_dtype", "is of the first moment, of which adafactor has none"
            )
        if self.learning_rate * self.weight_decay > 1:
            raise SettingError(
                "optimizer.weight_decay",
                f"({self.weight_decay}) x optimizer.learning_rate ({self.learning_rate}) must be "
                "at most 1, or a step of decay would turn the sign of every parameter",
            )


@dataclass(frozen=True)
class Training:
    """The training loop.

    Attributes:
        steps: Optimizer steps.
        epochs: Passes over the training data; where given, they decide the number of steps. A
            pass is one step for every whole batch.
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
        logits_mib: Memory for the logits of a device at a time, in MiB of float32; more of them are
            computed piece by piece.
        match: Find annotated words by character ``offsets``, or as the published code
            (``reference``) does.
        unmatched: JSONL file for the annotated words of training records that were not found;
            None writes none.
        deterministic: Compile for GPUs without operations whose bits differ from run to run, at
            some cost; CPUs and TPUs have none.
        profile: Folder for a profiler trace of three steps; None traces nothing.
        export_dtype: Dtype of the exported weights; None takes the pretrained model's, and float32
            for models from scratch and adapters.
        wandb_project: Weights & Biases project that receives the metrics too.
        mesh: How the devices share the work.
    """

    steps: Count = 1_000
    epochs: Annotated[float, Range(gt=0, le=10_000)] | None = None
    batch_size: Count = 64
    max_length: Count = 256
    pack: bool = False
    accumulate: Count = 1
    eval_every: Count = 100
    log_every: Count = 20
    save_every: Count = 500
    keep: Count = 2
    best: str | None = None
    patience: Count | None = None
    logits_mib: Count = 512
    match: Match = "offsets"
    unmatched: str | None = None
    deterministic: bool = False
    profile: str | None = None
    export_dtype: Dtype | None = None
    wandb_project: str | None = None
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        check_ranges(self, "train")
        if self.patience is not None:
            if self.best is None:
                raise SettingError(
                    "train.patience", "needs train.best, the value that must improve"
                )
            if self.log_every > self.eval_every:  # or a run might end before its first line
                raise SettingError(
                    "train.log_every",
                    f"({self.log_every}) must not exceed train.eval_every ({self.eval_every}) "
                    "where train.patience may end the run",
                )
        if self.batch_size % self.accumulate:
            raise SettingError(
                "train.accumulate",
                f"({self.accumulate}) must divide train.batch_size ({self.batch_size})",
            )

    def steps_per_epoch(self, count: int) -> int:
        """Return the steps of one pass over ``count`` training sequences."""
        return count // self.batch_size

    def for_sequences(self, count: int) -> "Training":
        """Return the loop for this number of training sequences, with ``steps`` for ``epochs``.

        Raises:
            SettingError: The epochs have more steps than can be counted.
        """
        if self.epochs is None:
            return self
        # Rounded: 0.07 * 100 is 7.000000000000001.
        steps = math.ceil(round(self.epochs * self.steps_per_epoch(count), 6))
        if steps > INT32_MAX:
            raise SettingError("train.epochs", f"({self.epochs}) are {steps:,} steps; lower it")
        return replace(self, steps=max(steps, 1), epochs=None)
