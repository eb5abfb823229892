"""Convert a model between a Hugging Face folder and an orbax folder, bit for bit.

The orbax folder holds the same config.json and tokenizer files, and the parameters of ``CausalLM``
in params/, with layers stacked.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from cat_jax.errors import InputError
from cat_jax.files import new_folder, refuse_existing
from cat_jax.models.huggingface.config import config_from_hf, read_config
from cat_jax.models.huggingface.export import hf_tensors
from cat_jax.models.huggingface.peft import load_adapter
from cat_jax.models.huggingface.safetensors import INDEX_FILE, write_tensors
from cat_jax.models.huggingface.weights import COMPANIONS, load_pretrained, local_folder
from cat_jax.models.lora import merge_lora

PARAMS = "params"


def convert_weights(source: str | Path, target: Path, *, adapter: Path | None = None) -> None:
    """Convert a Hugging Face folder to an orbax folder, or the other way round.

    The direction follows from what ``source`` holds. With an adapter the target is a Hugging Face
    folder with the adapter merged into the weights.

    Args:
        source: Hugging Face folder, hub name, or orbax folder written by this function.
        target: Folder to write; must not exist.
        adapter: PEFT folder to merge into the weights.

    Raises:
        InputError: ``source`` is neither kind of folder or is damaged, the adapter does not fit it,
            or ``target`` exists.
    """
    refuse_existing(target)
    is_orbax = (Path(source) / PARAMS).is_dir()
    folder = Path(source) if is_orbax else local_folder(source)
    config = config_from_hf(read_config(folder))
    params = _read_orbax(folder) if is_orbax else _read_hf(folder)
    if adapter is not None:
        lora, adapters = load_adapter(adapter, config)
        params = merge_lora(params, adapters, lora)
    with new_folder(target) as writing:
        _copy_companions(folder, writing)
        if is_orbax or adapter is not None:
            write_tensors(writing, hf_tensors(config, params))
        else:
            _write_orbax(writing, params)


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


def _copy_companions(source: Path, target: Path) -> None:
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            if path.name != INDEX_FILE:
                shutil.copyfile(path, target / path.name)
