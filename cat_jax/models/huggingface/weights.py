"""Load a Hugging Face folder or hub name as configuration and parameters of ``CausalLM``.

Whatever is missing, left over or of another shape is reported at once, before anything is read.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, Sharding

from cat_jax.config import ParamDtype
from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig, Remat
from cat_jax.models.huggingface.config import config_from_hf, first_sentence, read_config
from cat_jax.models.huggingface.parameters import load_int8_kernel, load_parameter
from cat_jax.models.huggingface.safetensors import FLOAT_TYPES, StoredTensor, stored_tensors
from cat_jax.models.huggingface.tensors import (
    COMPUTED_TENSORS,
    EMBED,
    KERNELS,
    UNEMBED,
    axis_sizes,
    tensor_rules,
)
from cat_jax.models.partitioning import param_shardings
from cat_jax.models.quantization import quantize_params
from pallas_kernels import Implementation

COMPANIONS = ("*.json", "tokenizer.model", "merges.txt", "chat_template.jinja")
"""The files of a folder that are not weights."""


def load_pretrained(
    name: str | Path,
    *,
    attention: Implementation = "xla",
    remat: Remat = "none",
    dtype: Literal["float32", "bfloat16"] = "float32",
    param_dtype: ParamDtype = "float32",
    sharding: Sharding | Mapping[str, Any] | Mesh | None = None,
) -> tuple[ModelConfig, dict[str, Any]]:
    """Load a Llama, Mistral, Qwen2 or Qwen3 model from a folder or the Hugging Face hub.

    Every tensor goes from the file straight into the parameter it is part of, and of a sharded
    parameter only the shards of this host are read. Besides the parameters themselves the host
    holds one shard of one parameter (all layers stacked).

    Args:
        name: A folder with ``config.json`` and ``model.safetensors`` (or its shards and index),
            or a hub name such as ``Qwen/Qwen2.5-0.5B``, downloaded unless cached.
        attention: As in ``ModelConfig``, like the next two; not part of a checkpoint.
        remat: What the backward pass recomputes.
        dtype: Dtype of activations.
        param_dtype: Dtype of the parameters; ``stored`` keeps what the files have. With ``int8``
            the kernels of the projections are ``Int8Kernel`` (of their scales every host reads the
            whole kernel), and all else is of ``dtype``; such parameters are not for training.
        sharding: Sharding of all parameters, nested dicts of shardings like the parameters, or a
            mesh of ``cat_jax.sharding`` over which they are split; None is the default device.

    Returns:
        The configuration, and the parameters of ``CausalLM`` as nested dicts of arrays.

    Raises:
        InputError: The folder cannot be had, is not a model this package computes, or holds NaN or
            infinity.
    """
    if param_dtype not in get_args(ParamDtype):
        known = ", ".join(get_args(ParamDtype))
        raise InputError(f"param_dtype must be one of {known}, got {param_dtype!r}")
    folder = local_folder(name)
    config = dataclasses.replace(
        config_from_hf(read_config(folder)), attention=attention, remat=remat, dtype=dtype
    )
    tensors = stored_tensors(folder)
    problems = list(_problems(tensors, config, param_dtype))
    if problems:
        raise InputError(f"the tensors of {folder} do not fit: {'; '.join(problems)}")
    rules = tensor_rules(config)
    if isinstance(sharding, Mesh):
        shapes = abstract_params(config)
        if param_dtype == "int8":
            shapes = jax.eval_shape(quantize_params, shapes)
        sharding = param_shardings(shapes, sharding)
    if isinstance(sharding, Mapping):
        shardings: dict[str, Any] = flatten_dict(sharding, sep="/")
    else:
        shardings = {rule.path: sharding for rule in rules}
    params: dict[str, Any] = {}
    for rule in rules:
        stored = {name: tensors[name] for name in rule.hf_names(config.num_layers)}
        given = stored, rule, axis_sizes(config)
        if param_dtype == "int8" and rule in KERNELS.values():
            params[rule.path] = load_int8_kernel(*given, shardings[rule.path])
        else:
            name = dtype if param_dtype == "int8" else param_dtype
            one = None if name == "stored" else jnp.dtype(name)
            params[rule.path] = load_parameter(*given, one, shardings[rule.path])
    return config, unflatten_dict(params, sep="/")


def abstract_params(config: ModelConfig) -> dict[str, Any]:
    """Return the shapes of the parameters, float32, as nested dicts of ``jax.ShapeDtypeStruct``."""
    sizes = axis_sizes(config)
    shapes = {rule.path: rule.shape(sizes, config.num_layers) for rule in tensor_rules(config)}
    flat = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    return unflatten_dict(flat, sep="/")


def is_folder(name: str | Path) -> bool:
    """Tell whether a name is that of a folder; False for an empty one and what no path can be."""
    try:
        return bool(str(name)) and Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with NUL
        return False


def local_folder(name: str | Path) -> Path:
    """Return the folder of a name, downloaded from the Hugging Face hub unless it is one.

    Raises:
        InputError: The hub does not give it.
    """
    if not str(name).strip():
        raise InputError("the name of a model is empty: give a folder or a hub name")
    if is_folder(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = [*COMPANIONS, "model*.safetensors"]
    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"{str(name)!r} is not a folder, and the Hugging Face hub did not give it "
            f"({first_sentence(error)}): check the name, the connection and your access"
        ) from error


def _problems(
    tensors: Mapping[str, StoredTensor], config: ModelConfig, param_dtype: str
) -> Iterator[str]:
    sizes, rules = axis_sizes(config), tensor_rules(config)
    expected = {
        name: rule.hf_shape(sizes) for rule in rules for name in rule.hf_names(config.num_layers)
    }
    yield from (f"{name} is missing" for name in expected if name not in tensors)
    # jax has no float64 unless asked.
    known = [name for name in FLOAT_TYPES if (param_dtype, name) != ("stored", "F64")]
    for name, tensor in sorted(tensors.items()):
        if name not in expected:
            if not _is_redundant(tensors, name, config):
                yield f"{name} is unexpected"
        elif tensor.shape != expected[name]:
            yield f"{name} has shape {tensor.shape}, not {expected[name]}"
        elif tensor.dtype not in known:
            yield f"{name} has dtype {tensor.dtype}, not one of {', '.join(known)}"
    if param_dtype == "stored":
        for rule in rules:
            found = {tensors[n].dtype for n in rule.hf_names(config.num_layers) if n in tensors}
            if len(found) > 1:
                yield f"{rule.hf_name} has several dtypes ({', '.join(sorted(found))})"


def _is_redundant(tensors: Mapping[str, StoredTensor], name: str, config: ModelConfig) -> bool:
    """Tell whether a tensor says nothing that the configuration and the others do not."""
    if name == UNEMBED and config.tie_embeddings and EMBED in tensors:
        one, other = tensors[name], tensors[EMBED]
        same_kind = one.dtype == other.dtype and one.dtype in FLOAT_TYPES
        return same_kind and np.array_equal(one.map(), other.map())
    return fnmatchcase(name, COMPUTED_TENSORS)
