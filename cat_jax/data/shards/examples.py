"""Prepared shards as a sequence of examples that are read when they are asked for."""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import overload

import grain
from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example
from cat_jax.data.shards.manifest import (
    MANIFEST,
    MEND,
    Manifest,
    Shard,
    digest,
    template_digest,
    tokenizer_digest,
)
from cat_jax.data.shards.serial import from_bytes
from cat_jax.errors import InputError


def is_prepared(source: object) -> bool:
    """Tell whether a source is a folder of prepared shards."""
    if not isinstance(source, str | PathLike):
        return False
    try:
        return (epath.Path(source) / MANIFEST).exists()
    except (OSError, ValueError):  # no path at all
        return False


def is_whole(folder: epath.Path, shard: Shard) -> bool:
    """Tell whether the file of a shard is there, and is what was written."""
    path = folder / shard.name
    return path.exists() and digest([path.read_bytes()]) == shard.sha256


class ShardedExamples(Sequence[Example]):
    """Examples of prepared shards, each read when it is asked for.

    Memory does not grow with their number. Shards of an object store are copied to a temporary
    folder of this machine first.

    Args:
        folder: Folder or ``gs://`` path that ``prepare_data`` wrote.

    Attributes:
        manifest: What the shards are.

    Raises:
        InputError: The manifest is damaged or a shard is missing or torn.
    """

    def __init__(self, folder: str | PathLike[str]):
        self.folder = epath.Path(folder)
        self.manifest = Manifest.read(self.folder)
        for shard in self.manifest.shards:
            path = self.folder / shard.name
            if not path.exists() or path.stat().length != shard.size:
                raise InputError(f"{path} is missing or torn; {MEND}")
        self._length = self.manifest.sequences  # a sum over shards, asked for at every read
        local = _local_copy(self.folder, self.manifest, self)
        paths = [str(local / shard.name) for shard in self.manifest.shards if shard.sequences]
        self._source = grain.sources.ArrayRecordDataSource(paths)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Read an example, or several."""
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        try:
            return from_bytes(self._source[number])
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError(f"{self.folder}: sequence {number} is damaged; {MEND}") from error

    def check(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int, match: str, pack: bool
    ) -> None:
        """Refuse shards that training would have made otherwise.

        Raises:
            InputError: They are of another tokenizer, chat template or alignment.
        """
        made = self.manifest.preparation
        if made.tokenizer != tokenizer_digest(tokenizer):
            wrong = "made with another tokenizer"
        elif made.template != template_digest(tokenizer):
            wrong = "made with another chat template"
        elif self.manifest.shape[0] > max_length:
            wrong = f"of up to {self.manifest.shape[0]} tokens, more than train.max_length"
        elif made.match != match:
            wrong = f"made with train.match {made.match}, not {match}"
        elif made.pack != pack:
            wrong = f"made with train.pack {made.pack}, not {pack}"
        else:
            return
        raise InputError(f"the shards in {self.folder} are {wrong}; {MEND}, or train as they are")


def _local_copy(folder: epath.Path, manifest: Manifest, owner: ShardedExamples) -> Path:
    """Return a folder of this machine with the shards; a copy lives as long as its owner."""
    if "://" not in str(folder):
        return Path(folder)
    copied = Path(tempfile.mkdtemp(prefix="shards-"))
    weakref.finalize(owner, shutil.rmtree, copied, ignore_errors=True)
    for shard in manifest.shards:
        (folder / shard.name).copy(copied / shard.name)
    return copied
