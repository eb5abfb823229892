"""What an experiment is: frozen dataclasses, one screen, no field that nothing reads."""

from dataclasses import dataclass, field
from typing import Literal

from cat_jax.data.alignment import Match
from cat_jax.errors import InputError
from cat_jax.losses.guidance import Form, Reduce, Scope
from cat_jax.losses.schedules import Schedule
from cat_jax.models import LoraConfig, Remat
from cat_jax.sharding import MeshShape
from cat_jax.tasks.factors import Effect, Granularity
from pallas_kernels import Implementation

Attention = Literal["auto"] | Implementation
"""``auto`` takes what is meant for the machine and the length of the rows, and says what."""


def check_positive(section: str, values: object, *names: str) -> None:
    """Raises InputError for the first of the fields that is not greater than 0."""
    for name in names:
        if not getattr(values, name) > 0:
            raise InputError(
                f"{section}.{name} must be greater than 0, got {getattr(values, name)}"
            )


@dataclass(frozen=True)
class GeneratedData:
    """Records drawn from the Spurious Token Game.

    Attributes:
        game: ``stg`` (risk of cancer) or ``stg_h`` (air quality index).
        train_rows: size of the training set.
        test_rows: size of each of the two generated test sets, IID and OOD.
        test_files: JSONL files to evaluate besides; each is reported under its file name.
        granularity: annotate a cause as "Smoking: 8" (``span``) or "8" (``value``).
        effect: annotate the answer (``target``) or "Answer: ..." (``answer``).
        trace: annotate the text after each cause too, as depending on that cause alone.
    """

    game: Literal["stg", "stg_h"] = "stg"
    train_rows: int = 1_600
    test_rows: int = 400
    test_files: tuple[str, ...] = ()
    granularity: Granularity = "value"
    effect: Effect = "target"
    trace: bool = False

    def __post_init__(self):
        check_positive("data", self, "train_rows", "test_rows")


@dataclass(frozen=True)
class JsonlData:
    """Your own annotated records.

    Attributes:
        train: JSONL file with ``input``, ``target`` and ``important``.
        iid: JSONL test file drawn like the training data.
        ood: JSONL test file in which the spurious correlations are broken.
        test_files: more JSONL files to evaluate; each is reported under its file name.
    """

    train: str
    iid: str
    ood: str
    test_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnData:
    """Your own rows: prompts and answers, conversations, or texts (docs/finetuning.md).

    Attributes:
        train: JSONL file of the training rows.
        validation: JSONL file of rows to measure the loss on.
        validation_share: share of the training rows that is set aside for this instead.
    """

    train: str
    validation: str | None = None
    validation_share: float = 0.0

    def __post_init__(self):
        if not 0 <= self.validation_share < 1:
            raise InputError(
                f"data.validation_share is a share from 0 to below 1, got {self.validation_share}"
            )
        if self.validation is not None and self.validation_share:
            raise InputError(
                "data.validation names a file and data.validation_share asks for training rows; "
                "give one of them"
            )


@dataclass(frozen=True)
class Scratch:
    """A Llama with random weights and a tokenizer made from the training text.

    Attributes:
        width: of the residual stream.
        mlp_width: hidden width of the feed-forward blocks.
        num_layers: transformer blocks.
        num_heads: query heads; they share the width.
        num_kv_heads: key/value heads.
        attention: implementation of the attention.
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
    """A model and its tokenizer in Hugging Face format.

    Attributes:
        name: local folder or hub name.
        attention: implementation of the attention.
        remat: what the backward pass recomputes to save memory: ``none``, each layer in
            ``full``, or all but the ``attention``, which costs less time and little memory (not
            with the attention ``xla`` or ``augmented``).
        dtype: dtype of activations; trained parameters are float32.
    """

    name: str
    attention: Attention = "auto"
    remat: Remat = "full"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class PretrainedLora(Pretrained):
    """A pretrained model that stays as it is, but for low-rank adapters that are trained.

    The frozen parameters are held in ``dtype``; the adapters in float32.

    Attributes:
        lora: form of the adapters.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class Guidance:
    """The second objective: loss = next-token loss + gamma(t) * guidance loss.

    Attributes:
        weight: gamma at the start.
        schedule: how gamma falls: ``exponential`` per epoch (CAT), ``linear`` or ``cosine`` to 0
            at the last step, or ``constant``.
        rate: of the exponential schedule, per epoch.
        form: of the loss; see ``cat_jax.losses.attention_guidance_loss``, as for the rest.
        alpha: ratio of causal to other attention from which a row is left alone.
        scope: what must meet the constraint.
        reduce: average over rows, or over samples.
        layers: constrain only these layers.
    """

    weight: float = 1.0
    schedule: Schedule = "constant"
    rate: float = 1.0
    form: Form = "mass_nll"
    alpha: float = 2.0
    scope: Scope = "mean"
    reduce: Reduce = "row"
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        if not self.weight >= 0:  # NaN, too, is not
            raise InputError(f"guidance.weight must not be negative, got {self.weight}")


PUBLISHED = Guidance(weight=1.0, schedule="exponential", rate=1.0, form="hinge", alpha=2.0)
"""The guidance of CAT (Han et al., EMNLP 2025) as its code most likely ran."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW with a warm-up, a cosine to zero, and clipping.

    Attributes:
        learning_rate: peak.
        warmup: share of the steps before the peak.
        weight_decay: decoupled.
        clip: largest global norm of the gradient.
        b2: decay of the second moment.
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
    """The loop.

    Attributes:
        steps: optimizer steps of each run.
        batch_size: rows of a step.
        accumulate: equal parts that the rows of a step are computed in, one after the other, to
            save memory; the step is the same.
        loss_chunk: positions of every row whose logits are in memory at a time.
        max_length: longest record in tokens; longer ones are left out and counted.
        pack: fill rows of ``max_length`` tokens with several records each.
        match: find annotated words by character ``offsets``, or as the published code
            (``reference``) does.
        log_every: steps between lines of ``metrics.jsonl``.
        eval_every: steps between evaluations on IID and OOD rows (for the curves).
        save_every: steps between checkpoints.
        keep: newest checkpoints that are kept, besides the best one.
        best: value of the evaluations by which the handed over parameters are chosen (lower is
            better for names that end in ``loss`` or ``perplexity``); None takes the last ones.
        patience: evaluations without a better ``best`` that end the run; None never does.
        mesh: how the devices share the work.
        deterministic: compute on GPUs without operations that give other bits each time, at some
            cost; CPUs and TPUs have none.
        profile: folder for a trace of three steps; None traces nothing.
        wandb_project: send metrics to this project of Weights & Biases as well.
    """

    steps: int = 1_000
    batch_size: int = 64
    accumulate: int = 1
    loss_chunk: int = 128
    max_length: int = 256
    pack: bool = False
    match: Match = "offsets"
    log_every: int = 20
    eval_every: int = 100
    save_every: int = 500
    keep: int = 2
    best: str | None = None
    patience: int | None = None
    mesh: MeshShape = field(default_factory=MeshShape)
    deterministic: bool = False
    profile: str | None = None
    wandb_project: str | None = None

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
class Experiment:
    """One comparison of plain fine-tuning with causal attention tuning.

    Attributes:
        name: of the output folder ``runs/NAME``.
        data: what to train and test on.
        model: what to train.
        guidance: the second objective of the ``cat`` run.
        optimizer: the same for every run.
        train: the same for every run.
        seeds: each gives its own initialisation and order of rows.
        published: compare with CAT under its published loss and annotation as well.
        distributed: this is one of several processes that train together; see docs/distributed.md.
        resume: continue the runs in the output folder from their last checkpoints.
        out: parent of the output folder.
    """

    name: str
    data: GeneratedData | JsonlData
    model: Scratch | Pretrained | PretrainedLora
    guidance: Guidance = Guidance()
    optimizer: Optimizer = Optimizer()
    train: Training = Training()
    seeds: tuple[int, ...] = (0,)
    published: bool = False
    distributed: bool = False
    resume: bool = False
    out: str = "runs"

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds must be different numbers, at least one, got {self.seeds}")


@dataclass(frozen=True)
class Finetune:
    """One training run on your own data.

    Attributes:
        name: of the output folder ``runs/NAME``.
        data: what to train and validate on.
        model: what to train.
        guidance: the second objective; None trains on next tokens alone.
        optimizer: its settings.
        train: the loop.
        seed: of the initialisation, the order of rows and the rows set aside.
        distributed: this is one of several processes that train together; see docs/distributed.md.
        resume: continue the run in the output folder from its last checkpoint.
        out: parent of the output folder.
    """

    name: str
    data: OwnData
    model: Scratch | Pretrained | PretrainedLora
    guidance: Guidance | None = None
    optimizer: Optimizer = Optimizer()
    train: Training = Training()
    seed: int = 0
    distributed: bool = False
    resume: bool = False
    out: str = "runs"
