"""One decoder-only transformer for every supported family, scanned over its layers."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.models.attention import KEYS_VALUES, MAPS, ROWS, Context, KVCache, SelfAttention
from cat_jax.models.config import ModelConfig
from cat_jax.models.edits import (
    ACTIVATIONS,
    ATTENTION_EDITS,
    OFFSETS,
    PATCHES,
    check_no_interventions,
    patched,
)
from cat_jax.models.embedding import Embedding, look_up, shard_activations
from cat_jax.models.layers import RMSNorm, SwiGLU
from cat_jax.models.projection import Projection
from cat_jax.types import Array, Float, Int, UInt32
from pallas_kernels import RESIDUAL_NAMES, Partition

COLLECTIONS = (MAPS, ROWS, KEYS_VALUES, ACTIVATIONS, ATTENTION_EDITS, PATCHES, OFFSETS)
"""What may enter and leave the layers beside parameters, stacked over them."""

Cache = KVCache | tuple[KVCache, ...]
"""Keys and values of all layers: stacked in front, or one by one."""


@struct.dataclass
class Aux:
    """What a forward pass returns besides logits.

    Attributes:
        mass: Attention probability on the annotated keys, [N, B, H, T] float32; None without bits.
    """

    mass: Float[Array, "N B H T"] | None = None


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward with residuals; the body of the scan."""

    config: ModelConfig
    partition: Partition | None = None

    @nn.compact
    def __call__(self, x_BTD: Array, context: Context, cache: KVCache | None):
        """Return (x, (mass, cache)) as ``nn.scan`` wants it."""
        normed_BTD = RMSNorm(self.config, name="attention_norm")(x_BTD)
        attended_BTD, mass_BHT, cache = SelfAttention(
            self.config, self.partition, name="attention"
        )(normed_BTD, context, cache)
        x_BTD = x_BTD + attended_BTD
        normed_BTD = RMSNorm(self.config, name="mlp_norm")(x_BTD)
        x_BTD = x_BTD + SwiGLU(self.config, self.partition, name="mlp")(normed_BTD)
        x_BTD = patched(self, "residual", shard_activations(x_BTD, self.partition))
        return x_BTD, (mass_BHT, cache)


class CausalLM(nn.Module):
    """Llama, Mistral, Qwen2 and Qwen3 as a function of parameters.

    ``logits, aux = CausalLM(config).apply({"params": params}, tokens, q_bits=..., k_bits=...)``

    A loss that cannot hold the logits of all positions takes the two halves one after the other:
    ``apply(..., method="hidden_states")`` and, for some positions, ``apply(..., method="logits")``.

    Attributes:
        config: What to compute.
        partition: How sequences, heads and positions are split over devices; attention kernels
            need to know.
    """

    config: ModelConfig
    partition: Partition | None = None

    def setup(self):
        """Declare the parameters."""
        config = self.config
        self.embed = Embedding(config.vocab_size, config.width, config.dtype)
        self.layers = scanned_layers(config)(config, self.partition)
        self.final_norm = RMSNorm(config)
        if not config.tie_embeddings:
            self.unembed = Projection((config.vocab_size,), dtype=config.dtype)

    def __call__(
        self, tokens_BT: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B T V"], Aux]:
        """Return the logits [B, T, V], float32, of the next token at every position.

        Takes what ``hidden_states`` takes.
        """
        x_BTD, aux = self.hidden_states(tokens_BT, **inputs)
        return self.logits(x_BTD), aux

    def hidden_states(
        self,
        tokens_BT: Int[Array, "B T"],
        *,
        q_bits: UInt32[Array, "B T W"] | None = None,
        k_bits: UInt32[Array, "B T W"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Aux]:
        """Return the normalized output of the last layer [B, T, D], from which ``logits`` projects.

        Args:
            tokens_BT: Token ids.
            q_bits: Annotation bits of the queries; given together with ``k_bits``.
            k_bits: Annotation bits of the keys.
            segment_ids: Queries attend only within equal ids (packing).
            positions: Positions of the tokens; None counts from 0.
        """
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        context = Context(positions, q_bits, k_bits, segment_ids)
        x_BTD = look_up(self.embed, tokens_BT, self.partition)
        x_BTD = self.perturb("embedded", x_BTD)  # nothing, unless the collection is given
        x_BTD, (mass, _) = self.layers(x_BTD, context, None)
        return self.final_norm(x_BTD), Aux(mass)

    def extend(
        self, tokens_B: Int[Array, " B"], positions_B: Int[Array, " B"], cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Go on by one token of each sequence.

        Args:
            tokens_B: Token ids.
            positions_B: Their positions.
            cache: Keys and values of the tokens before. Of a tuple each layer reads its own; then
                the parameters "layers" are a tuple too (``unstack_layers``), and nothing is sliced.

        Returns:
            Logits [B, V], float32, of the next tokens, and the cache after these.

        Raises:
            InputError: There are interventions, which only a whole sequence takes.
        """
        check_no_interventions(self.variables)
        context = Context(positions_B[:, None])
        x_B1D = look_up(self.embed, tokens_B[:, None], self.partition)
        layer = DecoderLayer(self.config, self.partition, parent=None)
        stacked = self.variables["params"]["layers"]

        def step(x_B1D: Array, params: Any, cache: KVCache) -> tuple[Array, KVCache]:
            extended: Any = layer.apply({"params": params}, x_B1D, context, cache)
            x_B1D, (_, cache) = extended
            return x_B1D, cache

        if isinstance(cache, tuple):
            new = []
            for params, old in zip(stacked, cache, strict=True):
                x_B1D, extended = step(x_B1D, params, old)
                new.append(extended)
            cache = tuple(new)
        else:
            # The cache is carried along and not scanned over, so that it is extended in place.
            def body(carry: Any, scanned: Any):
                x_B1D, cache = carry
                params, index = scanned
                cache = KVCache(cache.key_BGSC, cache.value_BGSC, layer=index)
                x_B1D, cache = step(x_B1D, params, cache)
                return (x_B1D, KVCache(cache.key_BGSC, cache.value_BGSC)), None

            layers = jnp.arange(self.config.num_layers)
            (x_B1D, cache), _ = jax.lax.scan(body, (x_B1D, cache), (stacked, layers))
        return self.logits(self.final_norm(x_B1D))[:, 0], cache

    def logits(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Return the logits, float32, of any positions of ``hidden_states``."""
        unembed = self.embed.attend if self.config.tie_embeddings else self.unembed
        return unembed(x_BTD).astype(jnp.float32)


def init_params(model: CausalLM, seed: int) -> Any:
    """Return random parameters, float32, in one program: those of ``model.init``."""
    return _init_params(model, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _init_params(model: CausalLM, key: Array) -> Any:
    return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def scanned_layers(config: ModelConfig) -> Any:
    """Return the module class of all layers, which recomputes what ``config.remat`` says."""
    layer = DecoderLayer
    if config.remat != "none":
        keep = jax.checkpoint_policies.save_only_these_names(*RESIDUAL_NAMES)
        policy = keep if config.remat == "attention" else None
        # Only a loop by itself keeps XLA from undoing the recomputation.
        layer = nn.remat(layer, prevent_cse=not config.scan, policy=policy)
    return nn.scan(
        layer,
        variable_axes=dict.fromkeys(("params", *COLLECTIONS), 0),
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=config.num_layers,
        unroll=1 if config.scan else config.num_layers,
    )
