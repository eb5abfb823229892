"""Where a model comes from, and its adapters."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from cat_jax.errors import SettingError
from cat_jax.ranges import Range, Share, check_ranges

Attention = Literal["auto", "xla", "xla_chunked", "augmented", "mosaic_gpu", "mosaic_tpu"]
"""Attention implementation; ``auto`` selects one for this machine and sequence length."""
Remat = Literal["none", "full", "attention"]
"""What the backward pass recomputes of each layer: nothing, everything, or all but the output,
mass and log-sum-exp of its attention, which a kernel's backward starts from."""
Dtype = Literal["float32", "bfloat16"]
FrozenDtype = Literal["float32", "bfloat16", "int8"]
"""Dtype of frozen parameters; with ``int8`` that of the projections' kernels alone."""
ParamDtype = Literal[FrozenDtype, "stored"]
"""Dtype of loaded parameters; ``stored`` keeps what the files have."""
Size = Annotated[int, Range(ge=1, le=2**20)]
"""Size of an axis of parameters."""
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (LoRA, Hu et al. 2021); the defaults are those of CAT's code.

    Attributes:
        rank: Inner size R of every adapter.
        alpha: Scales the adapter's output by alpha / rank.
        dropout: Dropout probability of the adapter's inputs in training.
        targets: Adapted projections, by PEFT's names.
    """

    rank: Annotated[int, Range(ge=1, le=2**16)] = 64
    alpha: Annotated[float, Range(gt=0, le=10**6)] = 32.0
    dropout: Share = 0.1
    targets: tuple[LoraTarget, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )

    def __post_init__(self):
        check_ranges(self, "model.lora")
        known = get_args(LoraTarget)
        unknown = [name for name in self.targets if name not in known]
        if unknown or len(set(self.targets)) != len(self.targets) or not self.targets:
            raise SettingError(
                "model.lora.targets",
                f"must be different names among {', '.join(known)}, at least one, "
                f"got {', '.join(self.targets) or 'none'}",
            )

    @property
    def scale(self) -> float:
        """Return alpha / rank, the factor of the adapter's output."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Scratch:
    """A Llama with random weights and a tokenizer trained on the training text.

    Attributes:
        width: Width of the residual stream.
        mlp_width: Hidden width of the feed-forward blocks.
        num_layers: Transformer layers.
        num_heads: Query heads; must divide the width into heads of an even size.
        num_kv_heads: Key/value heads; must divide the query heads.
        tokenizer: Tokens of "NAME: VALUE" texts (``fields``), or words and what is between them.
        attention: Attention implementation.
    """

    width: Size = 64
    mlp_width: Size = 172
    num_layers: Annotated[int, Range(ge=1, le=10_000)] = 2
    num_heads: Size = 4
    num_kv_heads: Size = 4
    tokenizer: Literal["fields", "words"] = "fields"
    attention: Attention = "auto"

    def __post_init__(self):
        check_ranges(self, "model")
        if self.width % self.num_heads or self.width // self.num_heads % 2:
            raise SettingError(
                "model.num_heads",
                f"({self.num_heads}) must divide model.width ({self.width}) into heads of an even "
                "size",
            )
        if self.num_heads % self.num_kv_heads:
            raise SettingError(
                "model.num_kv_heads",
                f"({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})",
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
        lora: Form of the adapters, which are float32.
        frozen_dtype: Dtype in which frozen parameters are kept; None takes ``dtype``. With ``int8``
            the kernels of the layers take a byte per number, and all else is of ``dtype``.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)
    frozen_dtype: FrozenDtype | None = None

    def __post_init__(self):
        known = get_args(FrozenDtype)
        if self.frozen_dtype is not None and self.frozen_dtype not in known:
            raise SettingError(
                "model.frozen_dtype",
                f"must be one of {', '.join(known)}, or none for that of model.dtype, "
                f"got {self.frozen_dtype!r}",
            )


ModelSource = Scratch | Pretrained | PretrainedLora
