"""The safetensors files of a Hugging Face folder: mapped to read, written shard by shard."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cat_jax.errors import InputError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
FLOAT_TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
"""What safetensors calls the types of floats."""


class StoredTensor(NamedTuple):
    """Where a tensor lies in a file; ``dtype`` is in the spelling of safetensors."""

    path: Path
    offset: int
    shape: list[int]
    dtype: str

    def map(self) -> np.ndarray:
        """Return the values as they lie in the file: nothing is read before it is used."""
        dtype, shape = FLOAT_TYPES[self.dtype], tuple(self.shape)
        return np.asarray(np.memmap(self.path, dtype, "r", self.offset, shape))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """List the tensors of a folder by name.

    Raises:
        InputError: No safetensors, a shard is missing, or a file is damaged.
    """
    return {name: tensor for path in _weight_files(folder) for name, tensor in read_header(path)}


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _shards(folder / INDEX_FILE)
    raise InputError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, and pickles such as "
        "pytorch_model.bin can run code when they are read, so they never are: convert those you "
        'trust with transformers, AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto")'
        ".save_pretrained(NEW_FOLDER)"
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


def read_header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    """List the tensors of one file by name.

    safetensors checks the file; the offsets, which it does not tell, are looked up.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}): download it again"
        ) from error
    for name, entry in header.items():
        if name != "__metadata__":
            begin = 8 + size + entry["data_offsets"][0]
            yield name, StoredTensor(path, begin, entry["shape"], entry["dtype"])


class NewTensor(NamedTuple):
    """A tensor to write, not yet in memory."""

    name: str
    bytes: int
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def write_tensors(
    folder: Path, tensors: Iterable[NewTensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write ``model.safetensors``, or shards of at most ``shard_bytes`` and their index."""
    shards = _split(tensors, shard_bytes)
    if len(shards) == 1:
        return _write_shard(folder / SINGLE_FILE, shards[0])
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / file, shard)
        weight_map |= {tensor.name: file for tensor in shard}
    total = sum(tensor.bytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _split(tensors: Iterable[NewTensor], shard_bytes: int) -> list[list[NewTensor]]:
    shards, room = [[]], shard_bytes
    for tensor in tensors:
        if tensor.bytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= tensor.bytes
    return shards


def _write_shard(path: Path, shard: list[NewTensor]) -> None:
    save_tensors(path, {tensor.name: np.ascontiguousarray(tensor.read()) for tensor in shard})


def refuse_not_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise InputError for the first tensor that holds NaN or infinity."""
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise InputError(f"the tensor {name} holds NaN or infinity: take another checkpoint")


def save_tensors(path: Path, values: dict[str, np.ndarray]) -> None:
    """Write one file, with the permissions of any other new file."""
    path.touch()
    mode = path.stat().st_mode
    save_file(values, path, {"format": "pt"})
    path.chmod(mode)  # safetensors lets the owner alone read it
