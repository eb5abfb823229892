"""What prepared shards are: how they were made, and how much is in them."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Match
from cat_jax.data.alignment_stats import AlignmentStats
from cat_jax.errors import InputError
from cat_jax.files import read_json

MANIFEST = "manifest.json"
VERSION = 2
"""Version of the form of shards and manifest."""
MEND = "prepare the data again"


@dataclass(frozen=True)
class Preparation:
    """How shards are made; all that their bytes depend on but the records.

    Attributes:
        tokenizer: Digest of the tokenizer.
        template: Digest of its chat template.
        max_length: Longest sequence in tokens.
        match: How annotated words are found.
        pack: Whether several records share a sequence.
        seed: Seed of the packing.
        records_per_shard: Records that are read for each shard.
    """

    tokenizer: str
    template: str
    max_length: int
    match: Match
    pack: bool
    seed: int
    records_per_shard: int

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        match: Match,
        *,
        pack: bool,
        seed: int,
        records_per_shard: int,
    ) -> "Preparation":
        """Return the preparation with a tokenizer and its chat template."""
        digests = tokenizer_digest(tokenizer), template_digest(tokenizer)
        return cls(*digests, max_length, match, pack, seed, records_per_shard)


@dataclass(frozen=True)
class Shard:
    """One file of sequences.

    Attributes:
        name: Its name.
        source: Digest of the records that it was made of.
        sha256: Digest of the file.
        size: Bytes of the file.
        examples: Digest of the aligned records, before packing.
        sequences: Sequences in the file.
        tokens: Tokens in all of them.
        longest: Tokens in the longest.
        words: Words of annotation bits in the widest.
        targets: Target tokens of the sequence that has most.
        lengths: Sequences by their number of tokens, as pairs.
        end_ids: Special tokens that the records teach as ends of answers.
        stats: Counts of the alignment.
    """

    name: str
    source: str
    sha256: str
    size: int
    examples: str
    sequences: int
    tokens: int
    longest: int
    words: int
    targets: int
    lengths: list[tuple[int, int]]
    end_ids: list[int]
    stats: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """Everything about prepared shards that training needs to know before it reads one.

    Attributes:
        source: Name of the source.
        preparation: How the shards were made.
        shards: The shards in the order of the records.
    """

    source: str
    preparation: Preparation
    shards: list[Shard]

    @property
    def sequences(self) -> int:
        """Return the number of sequences."""
        return sum(shard.sequences for shard in self.shards)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the smallest (T, W) that holds all sequences."""
        return (
            max((shard.longest for shard in self.shards), default=0),
            max((shard.words for shard in self.shards), default=0),
        )

    @property
    def targets(self) -> int:
        """Return the number of target tokens of the sequence that has most."""
        return max((shard.targets for shard in self.shards), default=0)

    @property
    def filled(self) -> float:
        """Return the share of tokens that are not padding in batches of that shape."""
        places = self.sequences * self.shape[0]
        return sum(shard.tokens for shard in self.shards) / places if places else 0.0

    @property
    def stats(self) -> AlignmentStats:
        """Return the counts of the alignment, without the words that were not found."""
        each = (AlignmentStats(**dict[str, Any](shard.stats)) for shard in self.shards)
        return sum(each, AlignmentStats())

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Return the special tokens that the records teach as ends of answers."""
        return tuple(sorted({end for shard in self.shards for end in shard.end_ids}))

    @property
    def lengths(self) -> dict[int, int]:
        """Return the number of sequences by their length in tokens."""
        counts: Counter[int] = Counter()
        for shard in self.shards:
            counts.update(dict(shard.lengths))
        return dict(sorted(counts.items()))

    def __str__(self) -> str:
        return (
            f"{self.stats.records} records in {self.sequences} sequences of up to {self.shape[0]} "
            f"tokens in {len(self.shards)} shards; {self.stats}"
        )

    def to_json(self) -> str:
        """Return the text of the file ``manifest.json``."""
        about = {
            "version": VERSION,
            "source": self.source,
            "preparation": asdict(self.preparation),
            "sequences": self.sequences,
            "shape": self.shape,
            "filled": self.filled,
            "stats": stats_fields(self.stats),
            "shards": [asdict(shard) for shard in self.shards],
        }
        return json.dumps(about, indent=1) + "\n"

    @classmethod
    def read(cls, folder: epath.Path) -> "Manifest":
        """Read the manifest of a folder.

        Raises:
            InputError: It is missing, damaged, or of another version.
        """
        file = folder / MANIFEST
        values = read_json(file, dict, MEND)
        if values.get("version") != VERSION:
            raise InputError(
                f"{file} has version {values.get('version')}, this package reads {VERSION}; {MEND}"
            )
        try:
            preparation = Preparation(**values["preparation"])
            shards = [parse_shard(shard) for shard in values["shards"]]
            return cls(str(values["source"]), preparation, shards)
        except (KeyError, TypeError) as error:
            raise InputError(f"{file} is damaged ({error}); {MEND}") from error


def parse_shard(values: dict[str, Any]) -> Shard:
    """Return the shard that JSON values describe.

    Raises:
        TypeError: A field is missing or unknown.
    """
    given: dict[str, Any] = {**values}
    given["lengths"] = [(size, count) for size, count in values.get("lengths", [])]
    return Shard(**given)


def stats_fields(stats: AlignmentStats) -> dict[str, int]:
    """Return the counts of an alignment as JSON values."""
    names = (field.name for field in fields(stats) if field.name != "unmatched")
    return {name: getattr(stats, name) for name in names}


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of all that decides how a fast tokenizer splits text."""
    special = sorted(f"{name}={token}" for name, token in tokenizer.special_tokens_map.items())
    backend = getattr(tokenizer, "backend_tokenizer")  # noqa: B009, only fast ones have it
    return digest([backend.to_str().encode(), *(text.encode() for text in special)])


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of the chat template."""
    return digest([json.dumps(tokenizer.chat_template, sort_keys=True).encode()])


def digest(parts: Sequence[bytes]) -> str:
    """Return a SHA-256 digest of parts, of which each counts with its length."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()
