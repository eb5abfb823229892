"""Loads a Hugging Face folder or hub name as configuration and parameters of ``CausalLM``.

Whatever is missing, left over or of another shape is reported at once, before anything is read.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig
from cat_jax.models.hf_config import config_from_hf, first_sentence, read_config
from cat_jax.models.hf_tensors import (
    COMPUTED_TENSORS,
    EMBED,
    UNEMBED,
    TensorRule,
    axis_sizes,
    tensor_rules,
)
from cat_jax.types import Array

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FLOAT_TYPES = ("F64", "F32", "F16", "BF16")


def load_pretrained(
    name: str | Path,
    *,
    attention: Literal["xla", "xla_chunked"] = "xla",
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> tuple[ModelConfig, dict[str, Any]]:
    """Load a Llama or Qwen2 model from a folder or the Hugging Face hub.

    Args:
        name: a folder with ``config.json`` and ``model.safetensors`` (or its shards and index),
            or a hub name such as ``Qwen/Qwen2.5-0.5B``, downloaded unless cached.
        attention: as in ``ModelConfig``, like the other two; not part of a checkpoint.
        remat: recompute each layer in the backward pass.
        dtype: of activations.

    Returns:
        The configuration, and the parameters of ``CausalLM`` as nested dicts of float32 arrays.

    Raises:
        InputError: the folder cannot be had, or is not a model this package computes.
    """
    folder = _local_folder(name)
    config = dataclasses.replace(
        config_from_hf(read_config(folder)), attention=attention, remat=remat, dtype=dtype
    )
    return config, _read_params(folder, config)


def _local_folder(name: str | Path) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "model*.safetensors"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"{str(name)!r} is not a folder, and the Hugging Face hub did not give it "
            f"({first_sentence(error)}): check the name, the connection and your access"
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder / INDEX_FILE)
    raise InputError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}: convert the weights to safetensors "
        "(pickles such as pytorch_model.bin can run code when they are read, so they never are)"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index} is no index of shards (JSON with a weight_map): download it again"
        ) from error
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise InputError(f"{index.parent} lacks shards named by its index: {', '.join(absent)}")
    return [index.parent / name for name in names]


def _read_params(folder: Path, config: ModelConfig) -> dict[str, Any]:
    with ExitStack() as stack:
        tensors = {}
        for path in _weight_files(folder):
            tensors |= _open_tensors(path, stack)
        problems = list(_problems(tensors, config))
        if problems:
            raise InputError(f"the tensors of {folder} do not fit: {'; '.join(problems)}")
        sizes = axis_sizes(config)
        return unflatten_dict(
            {rule.path: _gather(tensors, rule, sizes, config) for rule in tensor_rules(config)},
            sep="/",
        )


class StoredTensor(NamedTuple):
    """A tensor in an open file, not yet read."""

    file: Any
    name: str

    def shape(self) -> list[int]:
        """Take it from the header."""
        return self.file.get_slice(self.name).get_shape()

    def dtype(self) -> str:
        """Take it from the header, in the spelling of safetensors."""
        return self.file.get_slice(self.name).get_dtype()

    def read(self) -> np.ndarray:
        """Read the values."""
        return self.file.get_tensor(self.name)


def _open_tensors(path: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    try:
        file = stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): download it again"
        ) from error
    return {name: StoredTensor(file, name) for name in file.keys()}  # noqa: SIM118


def _problems(tensors: Mapping[str, StoredTensor], config: ModelConfig) -> Iterator[str]:
    sizes = axis_sizes(config)
    expected = {
        name: rule.hf_shape(sizes)
        for rule in tensor_rules(config)
        for name in rule.hf_names(config.num_layers)
    }
    yield from (f"{name} is missing" for name in expected if name not in tensors)
    for name, tensor in tensors.items():
        if name not in expected:
            if not _is_redundant(tensors, name, config):
                yield f"{name} is unexpected"
        elif tensor.shape() != expected[name]:
            yield f"{name} has shape {tensor.shape()}, not {expected[name]}"
        elif tensor.dtype() not in FLOAT_TYPES:
            yield f"{name} has dtype {tensor.dtype()}, not one of {', '.join(FLOAT_TYPES)}"


def _is_redundant(tensors: Mapping[str, StoredTensor], name: str, config: ModelConfig) -> bool:
    """Whether a tensor says nothing that the configuration and the others do not."""
    if name == UNEMBED and config.tie_embeddings and EMBED in tensors:
        return np.array_equal(tensors[name].read(), tensors[EMBED].read())
    return fnmatchcase(name, COMPUTED_TENSORS)


def _gather(
    tensors: Mapping[str, StoredTensor],
    rule: TensorRule,
    sizes: Mapping[str, int],
    config: ModelConfig,
) -> Array:
    """Read the tensors of one rule one by one into the parameter they make up."""
    names = rule.hf_names(config.num_layers)
    shape = [sizes[axis] for axis in rule.axes.split()]
    stacked = np.empty((len(names), *shape), np.float32)
    for n, name in enumerate(names):
        stacked[n] = rule.from_hf(tensors[name].read(), sizes)
    return jnp.asarray(stacked if rule.is_layered else stacked[0])
