"""The fingerprint of training data, by which a resumed run knows its own."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from etils import epath

from cat_jax.data.alignment import Example
from cat_jax.data.shards import Manifest
from cat_jax.errors import InputError
from cat_jax.files import read_json, write_text

DATA_FILE = "data.json"
DIGESTS = 65536
"""Largest number of digests in a fingerprint; of more records one digest stands for several."""
READ = ("tokens", "target_mask", "q_bits", "k_bits", "segment_ids", "positions")
"""Fields of an example from which the others follow."""
WIDTH = 8
"""Hexadecimal digits of one of them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """Digests of aligned records (tokens, loss mask, annotation), in order and before packing.

    Attributes:
        records: Number of records.
        sha256: Digest of all of them.
        per_digest: Consecutive records that share one of the ``digests``.
        digests: Short digests of the records, one after the other.
    """

    records: int
    sha256: str
    per_digest: int
    digests: str

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "Fingerprint":
        """Return the fingerprint of examples."""
        each = [_digest(example) for example in examples]
        per_digest = -(-len(each) // DIGESTS) or 1
        blocks = (each[n : n + per_digest] for n in range(0, len(each), per_digest))
        short = (hashlib.sha256(b"".join(block)).hexdigest()[:WIDTH] for block in blocks)
        total = hashlib.sha256(b"".join(each)).hexdigest()
        return cls(len(each), total, per_digest, "".join(short))

    @classmethod
    def of_shards(cls, manifest: Manifest) -> "Fingerprint":
        """Return the fingerprint of prepared shards; a digest stands for one of them."""
        shards = [shard.examples for shard in manifest.shards]
        total = hashlib.sha256("".join(shards).encode()).hexdigest()
        per_digest = manifest.preparation.records_per_shard
        short = "".join(digest[:WIDTH] for digest in shards)
        return cls(manifest.stats.records, total, per_digest, short)

    def difference(self, now: "Fingerprint") -> str | None:
        """Say how the data ``now`` differs from this, as a clause; None if it is the same."""
        if self == now:
            return None
        place = self._first_difference(now)
        if self.records != now.records:
            counts = f"{now.records} records instead of {self.records}"
            return counts if place is None else f"{counts}, {place} the first that differs"
        if place is None:
            return "the same number of records with other tokens or annotations"
        return f"{place} is the first with other tokens or annotations"

    def _first_difference(self, now: "Fingerprint") -> str | None:
        if self.per_digest != now.per_digest:
            return None
        pairs = zip(_split(self.digests), _split(now.digests), strict=False)
        block = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        if block is None:
            return None
        first = block * self.per_digest + 1
        if self.per_digest == 1:
            return f"record {first}"
        return f"one of the records {first} to {first + self.per_digest - 1}"


def check_data(workdir: epath.Path, now: Mapping[str, Fingerprint]) -> None:
    """Refuse to continue the run of a workdir on other data than it began with.

    Args:
        workdir: Folder of the run.
        now: Fingerprints of the data by its use: training, validation.

    Raises:
        InputError: The data differs, or the fingerprints cannot be read.
    """
    file = workdir / DATA_FILE
    if not file.exists():
        return
    mend = "restore it to resume, or choose another --name"
    try:
        before = {use: Fingerprint(**x) for use, x in read_json(file, dict, mend).items()}
    except TypeError as error:
        raise InputError(f"{file} holds no fingerprints of data; {mend}") from error
    for use in dict.fromkeys([*before, *now]):
        if use not in now or use not in before:
            begun = "with" if use in before else "without"
            difference = f"it was begun {begun} {use} data"
        else:
            difference = before[use].difference(now[use])
        if difference is not None:
            raise InputError(
                f"{workdir} was begun with other {use} data ({difference}; records that exceed "
                "train.max_length do not count); resume with the same data, or choose another "
                "--name"
            )


def note_data(workdir: epath.Path, now: Mapping[str, Fingerprint], *, begun: bool) -> None:
    """Keep the fingerprints in the workdir; of a run that was ``begun`` without them say so."""
    file = workdir / DATA_FILE
    if file.exists():
        return
    if begun:
        logger.info(
            "%s has no %s: whether this is the data that the run began with is not known; from "
            "now on it is",
            workdir,
            DATA_FILE,
        )
    write_text(file, json.dumps({use: asdict(x) for use, x in now.items()}) + "\n")


def _digest(example: Example) -> bytes:
    """Return the digest of all that training reads of an example."""
    total = hashlib.sha256()
    for name in READ:
        value = getattr(example, name)
        if value is not None:
            total.update(f"{name} {value.dtype.str} {value.shape};".encode())
            total.update(np.ascontiguousarray(value).tobytes())
    return total.digest()


def _split(digests: str) -> list[str]:
    return [digests[n : n + WIDTH] for n in range(0, len(digests), WIDTH)]
