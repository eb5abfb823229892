"""The model and tokenizer that an experiment starts from."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cat_jax.config import Pretrained, Scratch
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.models import CausalLM, ModelConfig, load_pretrained


def make_model(
    source: Scratch | Pretrained, texts: Iterable[str], seed: int
) -> tuple[PreTrainedTokenizerBase, CausalLM, Any]:
    """Tokenizer, model and initial parameters.

    Args:
        source: which model.
        texts: the training texts, from which a model from scratch takes its vocabulary.
        seed: of the random weights of a model from scratch.

    Raises:
        InputError: the pretrained model cannot be read.
    """
    if isinstance(source, Pretrained):
        config, params = load_pretrained(
            source.name, attention=source.attention, remat=source.remat, dtype=source.dtype
        )
        return AutoTokenizer.from_pretrained(source.name), CausalLM(config), params
    tokenizer = train_tokenizer(texts)
    config = ModelConfig(
        vocab_size=len(tokenizer),
        width=source.width,
        mlp_width=source.mlp_width,
        num_layers=source.num_layers,
        num_heads=source.num_heads,
        num_kv_heads=source.num_kv_heads,
        head_dim=source.width // source.num_heads,
        attention=source.attention,
    )
    model = CausalLM(config)
    tokens_BT = jnp.zeros((1, 1), jnp.int32)
    return tokenizer, model, model.init(jax.random.key(seed), tokens_BT)["params"]
