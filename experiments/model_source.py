"""The model and tokenizer that an experiment starts from."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cat_jax.config import Pretrained, PretrainedLora, Scratch
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.errors import InputError
from cat_jax.models import CausalLM, ModelConfig, load_pretrained
from pallas_kernels import Implementation, Selection, select_implementation, unsupported_reason

NO_TOKENIZER = "holds no tokenizer that transformers can read: add its tokenizer.json"


def resolve_attention(source: Scratch | Pretrained, length: int) -> Selection:
    """The implementation that a configuration names, or for ``auto`` the one meant for here.

    Args:
        source: names it.
        length: of the longest rows.

    Raises:
        InputError: the one that is named cannot run here.
    """
    dtype = source.dtype if isinstance(source, Pretrained) else "float32"
    if source.attention == "auto":
        return select_implementation(length, dtype)
    refusal = unsupported_reason(source.attention, dtype)
    if refusal is not None:
        raise InputError(
            f"model.attention is {source.attention}, but {refusal}; auto takes one that runs here"
        )
    return Selection(source.attention, "the configuration names it")


def make_model(
    source: Scratch | Pretrained,
    texts: Iterable[str],
    seed: int,
    attention: Implementation = "xla",
    mesh: Mesh | None = None,
) -> tuple[PreTrainedTokenizerBase, CausalLM, Any]:
    """Tokenizer, model and initial parameters.

    Args:
        source: which model.
        texts: the training texts, from which a model from scratch takes its vocabulary.
        seed: of the random weights of a model from scratch.
        attention: implementation of the attention.
        mesh: over which pretrained parameters are split as they are read.

    Raises:
        InputError: the pretrained model cannot be read, or not be split like that.
    """
    if isinstance(source, Pretrained):
        config, params = load_pretrained(
            source.name,
            attention=attention,
            remat=source.remat,
            dtype=source.dtype,
            # What is never updated needs no digits that the arithmetic drops.
            param_dtype=source.dtype if isinstance(source, PretrainedLora) else "float32",
            sharding=mesh,
        )
        return load_tokenizer(source.name, config.vocab_size), CausalLM(config), params
    tokenizer = train_tokenizer(texts)
    config = ModelConfig(
        vocab_size=len(tokenizer),
        width=source.width,
        mlp_width=source.mlp_width,
        num_layers=source.num_layers,
        num_heads=source.num_heads,
        num_kv_heads=source.num_kv_heads,
        head_dim=source.width // source.num_heads,
        attention=attention,
    )
    model = CausalLM(config)
    tokens_BT = jnp.zeros((1, 1), jnp.int32)
    return tokenizer, model, model.init(jax.random.key(seed), tokens_BT)["params"]


def load_tokenizer(name: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder or hub name.

    Raises:
        InputError: there is none, or it has tokens that a model of ``vocab_size`` does not know.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name} {NO_TOKENIZER} ({type(error).__name__})") from error
    # Without files, some families get a tokenizer of no words.
    if not tokenizer("a", add_special_tokens=False).input_ids:
        raise InputError(f"{name} {NO_TOKENIZER}")
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, but the model knows "
            f"{vocab_size}: use the tokenizer that belongs to it"
        )
    return tokenizer
