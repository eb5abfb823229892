"""Converts a model between a Hugging Face folder (safetensors) and an orbax folder, bit for bit.

The orbax folder holds the same config.json and tokenizer files, and the parameters of CausalLM in
params/, with layers stacked. The direction follows from what SOURCE holds.
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
from cat_jax.models import config_from_hf, load_pretrained
from cat_jax.models.hf_config import read_config
from cat_jax.models.hf_export import hf_tensors
from cat_jax.models.hf_weights import COMPANIONS, local_folder
from cat_jax.models.new_folder import new_folder, refuse_existing
from cat_jax.models.safetensors_folder import INDEX_FILE, write_tensors
from experiments.command_line import exit_status

PARAMS = "params"


@dataclass(frozen=True)
class Conversion:
    """What to convert.

    Attributes:
        source: a Hugging Face folder, a hub name, or an orbax folder written by this command.
        target: the folder to write; must not exist.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]


def main() -> None:
    """Converts what the command line names.

    Raises:
        InputError: SOURCE is neither kind of folder or is damaged, or TARGET exists.
    """
    request = tyro.cli(
        Conversion, prog="python -m experiments.convert_weights", description=__doc__
    )
    refuse_existing(request.target)
    if (Path(request.source) / PARAMS).is_dir():
        orbax_to_hf(Path(request.source), request.target)
    else:
        hf_to_orbax(local_folder(request.source), request.target)
    print(f"wrote {request.target}")


def hf_to_orbax(source: Path, target: Path) -> None:
    """Writes the parameters, in the dtypes they have, and the other files of a folder."""
    _, params = load_pretrained(source, param_dtype="stored", sharding=host())
    with new_folder(target) as writing, ocp.StandardCheckpointer() as checkpointer:
        copy_companions(source, writing)
        checkpointer.save(writing.absolute() / PARAMS, params)
        checkpointer.wait_until_finished()


def orbax_to_hf(source: Path, target: Path) -> None:
    """Writes safetensors, in shards if they are large, and the other files of a folder."""
    tensors = hf_tensors(config_from_hf(read_config(source)), read_params(source / PARAMS))
    with new_folder(target) as writing:
        copy_companions(source, writing)
        write_tensors(writing, tensors)


def read_params(folder: Path) -> Any:
    """The parameters of an orbax folder, on the host.

    Raises:
        InputError: orbax cannot read them.
    """
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
