"""Size of the benchmarked model; importing it imports no JAX."""

from dataclasses import dataclass

from cat_jax.config import Attention, Dtype, Remat


@dataclass(frozen=True)
class Sizes:
    """A small Llama with random weights.

    Attributes:
        vocab_size: Tokens of the vocabulary.
        width: Width of the residual stream.
        mlp_width: Hidden width of the feed-forward blocks.
        num_layers: Transformer layers.
        num_heads: Query heads.
        num_kv_heads: Key/value heads; must divide the query heads.
        head_dim: Size of a head; must be even.
        attention: Attention implementation.
        remat: Rematerialisation in the backward pass.
        dtype: Dtype of activations.
    """

    vocab_size: int = 8_192
    width: int = 512
    mlp_width: int = 1_408
    num_layers: int = 4
    num_heads: int = 8
    num_kv_heads: int = 2
    head_dim: int = 64
    attention: Attention = "xla_chunked"
    remat: Remat = "none"
    dtype: Dtype = "float32"
