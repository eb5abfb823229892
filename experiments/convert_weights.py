"""Converts a model between a Hugging Face folder (safetensors) and an orbax folder, bit for bit.

The orbax folder holds the same config.json and tokenizer files, and the parameters of CausalLM in
params/, with layers stacked. The direction follows from what SOURCE holds. With an adapter the
target is a Hugging Face folder with the adapter merged into the weights.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import orbax.checkpoint as ocp
import tyro
from jax.sharding import SingleDeviceSharding

from cat_jax.errors import InputError
from cat_jax.files import new_folder, refuse_existing
from cat_jax.models import config_from_hf, load_adapter, load_pretrained, merge_lora
from cat_jax.models.huggingface.config import read_config
from cat_jax.models.huggingface.export import hf_tensors
from cat_jax.models.huggingface.safetensors import INDEX_FILE, write_tensors
from cat_jax.models.huggingface.weights import COMPANIONS, local_folder
from experiments.command_line import exit_status

PARAMS = "params"


@dataclass(frozen=True)
class Conversion:
    """What to convert.

    Attributes:
        source: a Hugging Face folder, a hub name, or an orbax folder written by this command.
        target: the folder to write; must not exist.
        adapter: a folder of PEFT, or "adapter" of a run, to merge into the weights.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    adapter: Path | None = None


def main() -> None:
    """Converts what the command line names.

    Raises:
        InputError: SOURCE is neither kind of folder or is damaged, the adapter does not fit it, or
            TARGET exists.
    """
    request = tyro.cli(
        Conversion, prog="python -m experiments.convert_weights", description=__doc__
    )
    refuse_existing(request.target)
    is_orbax = (Path(request.source) / PARAMS).is_dir()
    source = Path(request.source) if is_orbax else local_folder(request.source)
    config = config_from_hf(read_config(source))
    params = read_orbax(source) if is_orbax else read_hf(source)
    if request.adapter is not None:
        lora, adapters = load_adapter(request.adapter, config)
        params = merge_lora(params, adapters, lora)
    with new_folder(request.target) as writing:
        copy_companions(source, writing)
        if is_orbax or request.adapter is not None:
            write_tensors(writing, hf_tensors(config, params))
        else:
            write_orbax(writing, params)
    print(f"wrote {request.target}")


def read_hf(folder: Path) -> Any:
    """The parameters of a Hugging Face folder, in the dtypes they have, on the host."""
    return load_pretrained(folder, param_dtype="stored", sharding=host())[1]


def write_orbax(folder: Path, params: Any) -> None:
    """Writes the parameters beside the other files of the folder."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, params)
        checkpointer.wait_until_finished()


def read_orbax(source: Path) -> Any:
    """The parameters of a folder that ``write_orbax`` wrote to, on the host.

    Raises:
        InputError: orbax cannot read them.
    """
    folder = source / PARAMS
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder.absolute()).item_metadata
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host()),
                metadata.tree,
            )
            return checkpointer.restore(folder.absolute(), abstract)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder} is not a whole orbax checkpoint ({type(error).__name__}): "
            "convert the model again"
        ) from error


def host() -> SingleDeviceSharding:
    """The memory of this machine, which may hold more than an accelerator."""
    return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])


def copy_companions(source: Path, target: Path) -> None:
    """Copies configuration and tokenizer files as they are."""
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            if path.name != INDEX_FILE:
                shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    sys.exit(exit_status(main))
