"""Where a model comes from, and its adapters."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from cat_jax.errors import InputError

Attention = Literal["auto", "xla", "xla_chunked", "augmented", "mosaic_gpu", "mosaic_tpu"]
"""Attention implementation; ``auto`` selects one for this machine and sequence length."""
Remat = Literal["none", "full", "attention"]
"""What the backward pass recomputes of each layer: nothing, everything, or all but the output,
mass and log-sum-exp of its attention, which a kernel's backward starts from."""
Dtype = Literal["float32", "bfloat16"]
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
