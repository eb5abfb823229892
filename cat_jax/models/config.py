"""The shape of a decoder-only language model: Llama, Qwen2 and Qwen3 in one dataclass."""

from dataclasses import dataclass

from cat_jax.config import Dtype, Remat
from cat_jax.errors import InputError
from pallas_kernels import KERNELS, Implementation


@dataclass(frozen=True)
class RopeScaling:
    """Slower rotary frequencies for contexts longer than those of pretraining, as in Llama 3.1.

    Attributes:
        factor: by which frequencies of long wavelengths are divided.
        low_freq_factor: wavelengths above original_max_positions / low_freq_factor are long.
        high_freq_factor: those below original_max_positions / high_freq_factor stay as they are;
            between the two the frequencies are blended.
        original_max_positions: context length of pretraining.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def __post_init__(self):
        values = (self.factor, self.low_freq_factor, self.original_max_positions)
        if not all(isinstance(value, int | float) and value > 0 for value in values):
            raise InputError(f"{self}: every number must be greater than 0")
        if not self.low_freq_factor < self.high_freq_factor:
            raise InputError(f"{self}: low_freq_factor must be less than high_freq_factor")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what a forward pass computes.

    Attributes:
        vocab_size: V.
        width: D, width of the residual stream.
        mlp_width: F, hidden width of the SwiGLU block.
        num_layers: N.
        num_heads: H, query heads.
        num_kv_heads: G, key/value heads; divides H.
        head_dim: C, size of one head (even; need not be D / H).
        rope_theta: base of the rotary frequencies.
        rope_scaling: how they are slowed (Llama 3.1 and 3.2), None where they are not.
        norm_eps: epsilon of RMSNorm.
        qkv_bias: query, key and value projections have a bias (Qwen2).
        qk_norm: RMSNorm on every query and key head, before the rotation (Qwen3).
        tie_embeddings: the output projection is the embedding, transposed.
        attention: implementation of ``pallas_kernels.causal_mass_attention``.
        scan: compile one layer and loop over it; False compiles every layer by itself.
        remat: what the backward pass recomputes instead of storing it: ``none``; each layer in
            ``full``; or all of it but its ``attention``, whose forward then runs once.
        dtype: dtype of activations and matrix products; parameters keep their own.
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
    tie_embeddings: bool = False
    attention: Implementation = "xla"
    scan: bool = True
    remat: Remat = "none"
    dtype: Dtype = "float32"

    def __post_init__(self):
        sizes = ("vocab_size", "width", "mlp_width", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"num_kv_heads ({self.num_kv_heads}) must divide num_heads ({self.num_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if self.remat == "attention" and self.attention not in KERNELS:
            raise InputError(
                f'remat "attention" keeps what a kernel leaves for its backward pass, and '
                f'attention "{self.attention}" leaves nothing: take remat "full", or attention '
                + " or ".join(f'"{name}"' for name in KERNELS)
            )
