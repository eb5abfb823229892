"""Convert a model between a Hugging Face folder and an orbax folder, bit for bit.

The orbax folder holds the same config.json and tokenizer files, and the parameters of ``CausalLM``
in params/, with layers stacked.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from cat_jax.config import Dtype
from cat_jax.errors import InputError
from cat_jax.files import new_folder, refuse_existing
from cat_jax.models.huggingface.companions import (
    TOKENIZER_FILES,
    config_files,
    listed_end_ids,
    write_config_files,
)
from cat_jax.models.huggingface.config import config_from_hf, read_config
from cat_jax.models.huggingface.export import common_dtype, hf_tensors
from cat_jax.models.huggingface.located import Located, locate
from cat_jax.models.huggingface.peft import load_adapter
from cat_jax.models.huggingface.safetensors import INDEX_FILE, write_tensors
from cat_jax.models.huggingface.weights import COMPANIONS, is_folder, load_pretrained
from cat_jax.models.lora import merge_lora

PARAMS = "params"


def convert_weights(
    source: str | Path,
    target: Path,
    *,
    adapter: Path | None = None,
    base: str | Path | None = None,
    dtype: Dtype | None = None,
) -> None:
    """Convert a Hugging Face folder to an orbax folder, or the other way round.

    The direction follows from what ``source`` holds. With an adapter the target is a Hugging Face
    folder with the adapter merged into the weights.

    Args:
        source: Hugging Face folder, hub name, orbax folder written by this function, PEFT folder,
            or folder of a run.
        target: Folder to write; must not exist.
        adapter: PEFT folder to merge into the weights.
        base: Base model, where ``source`` is an adapter; None takes the one that it names.
        dtype: Dtype of a Hugging Face folder's weights; None keeps the source's.

    Raises:
        InputError: ``source`` is neither kind of folder or is damaged, the adapter does not fit it,
            or ``target`` exists.
    """
    refuse_existing(target)
    is_orbax = is_folder(Path(source) / PARAMS)
    found = Located(Path(source)) if is_orbax else locate(source, base)
    if adapter is not None and found.adapter is not None:
        raise InputError(f"{source} is an adapter itself: give one of the two")
    config = config_from_hf(read_config(found.model))
    params = _read_orbax(found.model) if is_orbax else _read_hf(found.model)
    adapter = adapter or found.adapter
    if adapter is not None:
        lora, adapters = load_adapter(adapter, config)
        params = merge_lora(params, adapters, lora)
    with new_folder(target) as writing:
        _copy(found.model, writing, COMPANIONS)
        if found.companions != found.model:
            _copy(found.companions, writing, TOKENIZER_FILES)
        if not is_orbax and adapter is None and dtype is None:
            return _write_orbax(writing, params)
        tensors = hf_tensors(config, params, lambda name: dtype and jnp.dtype(dtype))
        if adapter is not None or dtype is not None:  # else the files stay as they are
            ends = listed_end_ids(found.companions)
            files = config_files(config, None, found.model, ends, common_dtype(tensors))
            write_config_files(writing, files)
        write_tensors(writing, tensors)


def _read_hf(folder: Path) -> Any:
    """Read parameters in the dtypes they are stored in, to the host."""
    return load_pretrained(folder, param_dtype="stored", sharding=_host())[1]


def _write_orbax(folder: Path, params: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, params)
        checkpointer.wait_until_finished()


def _read_orbax(source: Path) -> Any:
    folder = source / PARAMS
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder.absolute()).item_metadata
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_host()),
                metadata.tree,
            )
            return checkpointer.restore(folder.absolute(), abstract)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder} is not a whole orbax checkpoint ({type(error).__name__}): "
            "convert the model again"
        ) from error


def _host() -> SingleDeviceSharding:
    """Return the memory of this machine, which may hold more than an accelerator."""
    return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])


def _copy(source: Path, target: Path, patterns: Iterable[str]) -> None:
    """Copy configuration and tokenizer files as they are."""
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.name != INDEX_FILE:
                shutil.copyfile(path, target / path.name)
