"""Write configuration and parameters of ``CausalLM`` as a Hugging Face folder."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from cat_jax.config import Dtype
from cat_jax.errors import InputError
from cat_jax.files import new_folder
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.companions import config_files, write_config_files, write_tokenizer
from cat_jax.models.huggingface.safetensors import (
    FLOAT_TYPES,
    SHARD_BYTES,
    NewTensor,
    refuse_not_finite,
    stored_tensors,
    write_tensors,
)
from cat_jax.models.huggingface.tensors import TensorRule, axis_sizes, shape_problems, tensor_rules
from cat_jax.models.huggingface.weights import local_folder
from cat_jax.models.quantization import Int8Kernel
from cat_jax.sharding import to_host
from cat_jax.types import Array

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Cast = Callable[[str], np.dtype | None]


def save_pretrained(
    folder: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    source: str | Path | None = None,
    end_ids: Iterable[int] = (),
    dtype: Dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a Hugging Face folder that transformers 4 and 5 and ``load_pretrained`` read.

    The folder appears when it is whole. Kernels in int8 are written as the floats that they stand
    for. The host holds one file of at most ``shard_bytes`` at a
    time. Where several processes hold the parameters, all call this and the first writes.

    Args:
        folder: Folder to write; must not exist.
        config: Configuration of the model.
        params: Parameters of ``CausalLM``.
        tokenizer: Saved beside the weights, byte for byte as in the source if it is the source's.
        source: Hugging Face folder or hub name the model came from. Its configuration and defaults
            of generation are kept. Without one the special tokens are the tokenizer's, and the
            context length is ``config.max_positions``.
        end_ids: Token ids that end an answer, besides those of source or tokenizer; written to
            ``config.json`` and ``generation_config.json``.
        dtype: Dtype of the weights; None keeps that of each tensor in the source or, without one,
            in ``params``, and is float32 for kernels in int8.
        shard_bytes: Size from which weights are split into several files.

    Raises:
        InputError: The folder exists, no family of transformers computes this configuration, or
            the parameters are not those of the configuration, or are not finite.
    """
    origin = None if source is None else local_folder(source)
    tensors = hf_tensors(config, params, _cast(origin, dtype))
    files = config_files(config, tokenizer, origin, end_ids, common_dtype(tensors))
    if jax.process_index():
        return give_shards(tensors)
    with new_folder(Path(folder)) as writing:
        write_config_files(writing, files)
        if tokenizer is not None:
            write_tokenizer(writing, tokenizer, origin)
        write_tensors(writing, tensors, shard_bytes)


def _cast(source: Path | None, dtype: Dtype | None) -> Cast:
    if dtype is not None:
        return lambda name: np.dtype(dtype)
    if source is None:
        return lambda name: None
    stored = stored_tensors(source)
    return lambda name: FLOAT_TYPES[stored[name].dtype] if name in stored else None


def common_dtype(tensors: Iterable[NewTensor]) -> str:
    """Return the dtype that holds all of them, as ``config.json`` names it."""
    return jnp.result_type(*{tensor.dtype for tensor in tensors}).name


def give_shards(tensors: Iterable[NewTensor]) -> None:
    """Take part in gathering each tensor, in the order in which the first process writes them."""
    for tensor in tensors:
        tensor.read()


def hf_tensors(
    config: ModelConfig,
    params: Mapping[str, Any],
    cast: Cast = lambda name: None,
) -> list[NewTensor]:
    """Return the parameters as tensors of Hugging Face, each laid out when it is read.

    Args:
        config: Configuration of the model.
        params: Parameters of ``CausalLM``.
        cast: Maps the name of a tensor to the dtype that it is written in; None keeps its own.

    Raises:
        InputError: The parameters are not those of the configuration (all differences are listed)
            or, when a tensor is read, are not finite.
    """
    sizes, layers = axis_sizes(config), config.num_layers
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    rules = {rule.path: rule for rule in tensor_rules(config)}
    shapes = {path: rule.shape(sizes, layers) for path, rule in rules.items()}
    problems = shape_problems(flat, shapes)
    if problems:
        raise InputError(f"the parameters do not fit the configuration: {'; '.join(problems)}")
    tensors = []
    for path, rule in rules.items():
        names = rule.hf_names(layers)
        for layer, name in enumerate(names):
            dtype = np.dtype(cast(name) or _own_dtype(flat[path]))
            size = math.prod(flat[path].shape) // len(names) * dtype.itemsize
            read = partial(_read, name, dtype, flat[path], rule, layer, sizes)
            tensors.append(NewTensor(name, size, dtype, read))
    return tensors


def _own_dtype(value: Array | Int8Kernel) -> np.dtype:
    return np.dtype(np.float32) if isinstance(value, Int8Kernel) else value.dtype


def _read(
    name: str,
    dtype: np.dtype,
    value: Array | Int8Kernel,
    rule: TensorRule,
    layer: int,
    sizes: Mapping[str, int],
) -> np.ndarray:
    one = jax.tree.map(lambda x: x[layer], value) if rule.is_layered else value
    if isinstance(one, Int8Kernel):
        one = one.dequantize()
    laid_out = rule.to_hf(to_host(one), sizes)
    written = laid_out.astype(dtype, copy=False)
    refuse_not_finite({f"{name} as {dtype.name}": written})
    return written
