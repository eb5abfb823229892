"""What a training run is: frozen dataclasses, no field that nothing reads.

Importing this module imports no JAX, so that command lines answer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from cat_jax.data.alignment import Match
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task

Attention = Literal["auto", "xla", "xla_chunked", "augmented", "mosaic_gpu", "mosaic_tpu"]
"""Attention implementation; ``auto`` selects one for this machine and sequence length."""
Remat = Literal["none", "full", "attention"]
"""What the backward pass recomputes of each layer: nothing, everything, or all but the output,
mass and log-sum-exp of its attention, which a kernel's backward starts from."""
Dtype = Literal["float32", "bfloat16"]
Form = Literal["hinge", "div", "div2", "nll", "mass_nll"]
Scope = Literal["mean", "layer", "head"]
Reduce = Literal["row", "sample"]
Schedule = Literal["exponential", "linear", "cosine", "constant"]
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

GuidanceForm = Callable[[Any, Any, Any], Any]
"""``form(mass, causal_count, visible_count)`` -> penalty of each row; see
``cat_jax.losses.attention_guidance_loss``."""
if TYPE_CHECKING:
    AnyForm = Form | GuidanceForm
else:  # a command line takes the names only
    AnyForm = Form


def check_positive(section: str, values: object, *names: str) -> None:
    """Raise InputError for the first of the fields that is not greater than 0."""
    for name in names:
        if not getattr(values, name) > 0:
            raise InputError(
                f"{section}.{name} must be greater than 0, got {getattr(values, name)}"
            )


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (LoRA, Hu et al. 2021); the defaults are those of CAT's code.

    Attributes:
        rank: Inner size R of every adapter.
        alpha: Scales the adapter's output by alpha / rank.
        dropout: Dropout probability of the adapter's inputs in training.
        targets: Adapted projections, by PEFT's names.
    """

    rank: int = 64
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[LoraTarget, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )

    def __post_init__(self):
        if self.rank < 1:
            raise InputError(f"lora.rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise InputError(f"lora.alpha must be greater than 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is a share from 0 to below 1, got {self.dropout}")
        known = get_args(LoraTarget)
        unknown = [name for name in self.targets if name not in known]
        if unknown or len(set(self.targets)) != len(self.targets) or not self.targets:
            raise InputError(
                f"lora.targets must be different names among {', '.join(known)}, at least one, "
                f"got {', '.join(self.targets) or 'none'}"
            )

    @property
    def scale(self) -> float:
        """Return alpha / rank, the factor of the adapter's output."""
        return self.alpha / self.rank


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


@dataclass(frozen=True)
class Scratch:
    """A Llama with random weights and a tokenizer trained on the training text.

    Attributes:
        width: Width of the residual stream.
        mlp_width: Hidden width of the feed-forward blocks.
        num_layers: Transformer layers.
        num_heads: Query heads; must divide the width.
        num_kv_heads: Key/value heads.
        attention: Attention implementation.
    """

    width: int = 64
    mlp_width: int = 172
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    attention: Attention = "auto"

    def __post_init__(self):
        if self.width % self.num_heads:
            raise InputError(
                f"model.num_heads ({self.num_heads}) must divide model.width ({self.width})"
            )


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model and its tokenizer in Hugging Face format; all parameters are trained.

    Attributes:
        name: Local folder or hub name.
        attention: Attention implementation.
        remat: Rematerialisation in the backward pass: ``none``, each layer in ``full``, or all but
            the ``attention``, which costs less time and little memory (not with the attention
            ``xla`` or ``augmented``).
        dtype: Dtype of activations; trained parameters are float32.
    """

    name: str
    attention: Attention = "auto"
    remat: Remat = "full"
    dtype: Dtype = "bfloat16"


@dataclass(frozen=True)
class PretrainedLora(Pretrained):
    """A frozen pretrained model with low-rank adapters that are trained.

    Attributes:
        lora: Form of the adapters, which are float32; frozen parameters are kept in ``dtype``.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)


ModelSource = Scratch | Pretrained | PretrainedLora


@dataclass(frozen=True)
class Guidance:
    """The second objective: loss = next-token loss + gamma(t) * guidance loss.

    Attributes:
        weight: Initial weight gamma.
        form: Form of the loss; see ``cat_jax.losses.attention_guidance_loss``, as for the next
            four. In Python also a function ``(mass, causal_count, visible_count) -> penalty``.
        scope: What must meet the constraint: the ``mean`` map, each ``layer`` or each ``head``.
        alpha: Ratio of causal to other attention from which a row costs nothing.
        reduce: Average over each ``row``, or over the rows of a ``sample`` first.
        layers: Constrained layers; None constrains all.
        schedule: Decay of gamma: ``exponential`` by epoch (CAT), ``linear`` or ``cosine`` to 0 at
            the last step, or ``constant``.
        rate: Decay rate of the exponential schedule, per epoch.
    """

    weight: float = 1.0
    form: AnyForm = "mass_nll"
    scope: Scope = "mean"
    alpha: float = 2.0
    reduce: Reduce = "row"
    layers: tuple[int, ...] | None = None
    schedule: Schedule = "constant"
    rate: float = 1.0

    def __post_init__(self):
        if not self.weight >= 0:  # NaN, too, is not
            raise InputError(f"guidance.weight must not be negative, got {self.weight}")


PUBLISHED = Guidance(weight=1.0, schedule="exponential", rate=1.0, form="hinge", alpha=2.0)
"""The guidance of CAT (Han et al., EMNLP 2025) as its code most likely ran."""


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


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        name: Output folder name: OUT/NAME.
        seed: Seed of initialisation, data order and generated records.
        resume: Continue the run in the output folder from its last checkpoint.
        out: Parent of the output folder; a path or gs://BUCKET/FOLDER.
        distributed: This is one of several processes that train together (docs/distributed.md).
        model: Model to train.
        data: Task, or your own files, to train and evaluate on.
        guidance: Second objective; None trains on next tokens alone.
        optimizer: Optimizer.
        train: Training loop.
    """

    name: str
    model: ModelSource
    data: Task
    guidance: Guidance | None = None
    optimizer: Optimizer = Optimizer()
    train: Training = Training()
    seed: int = 0
    resume: bool = False
    out: str = "runs"
    distributed: bool = False

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"seed must be 0 or greater, got {self.seed}")
