"""Writes configuration and parameters of ``CausalLM`` as a Hugging Face folder."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from cat_jax.errors import InputError
from cat_jax.files import new_folder
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.config import SPECIAL_TOKENS, config_to_hf
from cat_jax.models.huggingface.safetensors import SHARD_BYTES, NewTensor, write_tensors
from cat_jax.models.huggingface.tensors import TensorRule, axis_sizes, shape_problems, tensor_rules
from cat_jax.sharding import to_host
from cat_jax.types import Array

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def save_pretrained(
    folder: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    like: "PretrainedConfig | None" = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a Hugging Face folder that transformers and ``load_pretrained`` read.

    The folder appears when it is whole. The host holds one file of at most ``shard_bytes`` at a
    time; parameters keep their dtypes. Where several processes hold the parameters, all call this
    and the first writes.

    Args:
        folder: must not exist.
        config: of the model.
        params: its parameters.
        tokenizer: saved beside the weights; without ``like`` the special tokens are its own.
        like: the transformers configuration of the model it came from, for the context length and
            the special tokens; see ``config_to_hf``.
        shard_bytes: size from which weights are split into several files.

    Raises:
        InputError: the folder exists, no family of transformers computes this configuration, or
            the parameters are not those of the configuration.
    """
    hf_config = config_to_hf(config, like)
    if like is None and tokenizer is not None:
        for name in SPECIAL_TOKENS:
            setattr(hf_config, name, getattr(tokenizer, name))
    hf_config.dtype = jnp.result_type(*jax.tree.leaves(params)).name
    tensors = hf_tensors(config, params)
    if jax.process_index():
        return give_shards(tensors)
    with new_folder(Path(folder)) as writing:
        hf_config.save_pretrained(writing)
        if tokenizer is not None:
            tokenizer.save_pretrained(writing)
        write_tensors(writing, tensors, shard_bytes)


def give_shards(tensors: Iterable[NewTensor]) -> None:
    """Take part in gathering each tensor, in the order in which the first process writes them."""
    for tensor in tensors:
        tensor.read()


def hf_tensors(config: ModelConfig, params: Mapping[str, Any]) -> list[NewTensor]:
    """Give the parameters as tensors of Hugging Face, each laid out when it is read.

    Raises:
        InputError: the parameters are not those of the configuration; all differences are listed.
    """
    sizes, layers = axis_sizes(config), config.num_layers
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    rules = {rule.path: rule for rule in tensor_rules(config)}
    shapes = {path: rule.shape(sizes, layers) for path, rule in rules.items()}
    problems = shape_problems(flat, shapes)
    if problems:
        raise InputError(f"the parameters do not fit the configuration: {'; '.join(problems)}")
    return [
        NewTensor(
            name, flat[path].nbytes // len(names), partial(_lay_out, flat[path], rule, n, sizes)
        )
        for path, rule in rules.items()
        for names in [rule.hf_names(layers)]
        for n, name in enumerate(names)
    ]


def _lay_out(value: Array, rule: TensorRule, layer: int, sizes: Mapping[str, int]) -> np.ndarray:
    return rule.to_hf(to_host(value[layer] if rule.is_layered else value), sizes)
