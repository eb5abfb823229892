"""The shape of a decoder-only language model: Llama, Mistral, Qwen2 and Qwen3 in one dataclass."""

import math
from dataclasses import dataclass

from cat_jax.config import Dtype, Remat
from cat_jax.errors import InputError
from cat_jax.models.rope import RopeScaling
from pallas_kernels import KERNELS, Implementation


@dataclass(frozen=True)
class ModelConfig:
    """All that decides what a forward pass computes.

    Attributes:
        vocab_size: V, vocabulary.
        width: D, width of the residual stream.
        mlp_width: F, hidden width of the SwiGLU block.
        num_layers: N, transformer layers.
        num_heads: H, query heads.
        num_kv_heads: G, key/value heads; divides H.
        head_dim: C, size of one head (even; need not be D / H).
        rope_theta: Base of the rotary frequencies.
        norm_eps: Epsilon of RMSNorm.
        qkv_bias: Whether query, key and value projections have a bias (Qwen2).
        qk_norm: RMSNorm on every query and key head, before the rotation (Qwen3).
        rope_scaling: Rescaling of the rotary frequencies for long contexts.
        max_positions: Longest sequence, in tokens.
        tie_embeddings: Whether the output projection is the embedding, transposed.
        attention: Implementation of ``pallas_kernels.causal_mass_attention``.
        scan: Compile one layer and loop over it; False compiles every layer by itself.
        remat: What the backward pass recomputes instead of storing it: ``none``; each layer in
            ``full``; or all of it but its ``attention``, whose forward then runs once.
        dtype: Dtype of activations and matrix products; parameters keep their own.
    """

    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None
    max_positions: int = 2048
    tie_embeddings: bool = False
    attention: Implementation = "xla"
    scan: bool = True
    remat: Remat = "none"
    dtype: Dtype = "float32"

    def __post_init__(self):
        sizes = ("vocab_size", "width", "mlp_width", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "max_positions"):
            if not 1 <= getattr(self, name) < 2**31:
                raise InputError(
                    f"{name} must be at least 1 and below 2**31, got {getattr(self, name)}"
                )
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"num_kv_heads ({self.num_kv_heads}) must divide num_heads ({self.num_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        for name, low in (("rope_theta", 1), ("norm_eps", 0)):
            if not low < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be greater than {low}, got {getattr(self, name)}")
        if self.remat == "attention" and self.attention not in KERNELS:
            raise InputError(
                f'remat "attention" keeps what a kernel leaves for its backward pass, and '
                f'attention "{self.attention}" leaves nothing: take remat "full", or attention '
                + " or ".join(f'"{name}"' for name in KERNELS)
            )
