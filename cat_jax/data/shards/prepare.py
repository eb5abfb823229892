"""From a source to shards: aligned, packed and written a shard at a time."""

import itertools
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example, Match, align_records
from cat_jax.data.alignment_stats import AlignmentStats
from cat_jax.data.altered import AlteredConversation
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.ends import taught_end_ids
from cat_jax.data.formats import parse_items
from cat_jax.data.packing import pack_examples
from cat_jax.data.readers import open_items
from cat_jax.data.shards.examples import is_whole
from cat_jax.data.shards.manifest import (
    MANIFEST,
    Manifest,
    Preparation,
    Shard,
    digest,
    parse_shard,
    stats_fields,
)
from cat_jax.data.shards.serial import to_bytes
from cat_jax.data.sources import training_record_fields, with_template_options
from cat_jax.errors import InputError
from cat_jax.files import read_json, write_bytes, write_text

SETTINGS = "preparation.json"
"""Settings of a preparation that is not finished."""

SHARD = "shard-{:05d}.array_record"
"""Names of the shards."""

logger = logging.getLogger(__name__)


def prepare_data(
    source: str | PathLike[str] | Iterable[Any],
    out: str | PathLike[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 256,
    match: Match = "offsets",
    pack: bool = False,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    template_options: Mapping[str, Any] | None = None,
    records_per_shard: int = 8_192,
    progress: Callable[[int], None] = lambda records: None,
) -> Manifest:
    """Align records and write them as ArrayRecord shards with a manifest.

    Records are held one shard at a time. A preparation that was interrupted continues: shards that
    are whole and whose records are the same are kept, all others are made anew.

    Args:
        source: What ``read_records`` reads.
        out: Folder or ``gs://`` path to write.
        tokenizer: Tokenizer of the model to train.
        max_length: Longest sequence in tokens; longer records are left out and counted.
        match: How annotated words are found.
        pack: Pack several records of a shard into a sequence.
        seed: Seed of the packing.
        columns: Names of columns that are called otherwise, as of ``read_records``.
        template_options: Variables of the chat template, as of ``read_records``.
        records_per_shard: Records that are read for each shard.
        progress: Is called with the number of records after each shard.

    Returns:
        The manifest.

    Raises:
        InputError: The source cannot be read, holds no record that fits, or ``out`` holds
            something else.
    """
    folder = epath.Path(out)
    preparation = Preparation.of(
        tokenizer, max_length, match, pack=pack, seed=seed, records_per_shard=records_per_shard
    )
    called = str(source) if isinstance(source, str | PathLike) else "the source"
    chunks = read_chunks(source, columns, template_options, records_per_shard)
    first = first_chunk(chunks, called)
    known = begin(folder, preparation)
    shards: list[Shard] = []
    records = 0
    for number, chunk in enumerate(itertools.chain([first], chunks)):
        shards.append(keep_or_write(folder, number, chunk, tokenizer, preparation, known))
        records += len(chunk)
        progress(records)
    return finish(folder, Manifest(called, preparation, shards))


def first_chunk(chunks: Iterator[list[TrainingRecord]], called: str) -> list[TrainingRecord]:
    """Return the first records of a source: one that cannot be read must not cost old shards.

    Raises:
        InputError: It cannot be read, or holds no records.
    """
    first = next(chunks, None)
    if first is None:
        raise InputError(f"{called} holds no records; add at least one")
    return first


def read_chunks(
    source: str | PathLike[str] | Iterable[Any],
    columns: Mapping[str, str] | None,
    template_options: Mapping[str, Any] | None,
    size: int,
) -> Iterator[list[TrainingRecord]]:
    """Yield the records of a source, so many at a time.

    Raises:
        InputError: As of ``read_records``.
    """
    items = parse_items(open_items(source), columns)
    while chunk := list(itertools.islice(items, size)):
        if template_options:
            chunk = with_template_options(chunk, template_options, "the source")
        yield chunk


def records_digest(records: Iterable[TrainingRecord]) -> str:
    """Return a digest of the content of records."""
    return digest([json.dumps(training_record_fields(record)).encode() for record in records])


def finish(folder: epath.Path, manifest: Manifest) -> Manifest:
    """Write the manifest and remove what only an unfinished preparation needs.

    Raises:
        InputError: There is no sequence to train on.
    """
    if not manifest.sequences:
        stats = manifest.stats
        _remove_all_but(folder, set())
        if not any(folder.iterdir()):
            folder.rmdir()
        raise InputError(
            f"{manifest.source} gives nothing to train on: {stats.too_long} records exceed "
            f"{manifest.preparation.max_length} tokens, {stats.altered} conversations are altered "
            "by the chat template; raise train.max_length, or see docs/data.md, Conversations"
        )
    write_text(folder / MANIFEST, manifest.to_json())
    _remove_all_but(folder, {shard.name for shard in manifest.shards})
    return manifest


def _remove_all_but(folder: epath.Path, kept: set[str]) -> None:
    """Remove the files of an unfinished preparation."""
    for path in folder.iterdir():
        if path.name.lstrip(".").startswith("shard-") and path.name not in kept:
            path.unlink()
    (folder / SETTINGS).unlink(missing_ok=True)


def begin(folder: epath.Path, preparation: Preparation) -> dict[str, Shard]:
    """Take a folder for a preparation; return the shards that one of the same kind left in it.

    Raises:
        InputError: The folder holds something else, or shards made in another way.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the shards")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if MANIFEST in names:
        manifest = Manifest.read(folder)
        before, shards = asdict(manifest.preparation), manifest.shards
    elif SETTINGS in names:
        mend = "remove the folder, or choose another"
        before = read_json(folder / SETTINGS, dict, mend)
        marks = sorted(name for name in names if name.endswith(".json") and name != SETTINGS)
        shards = list(_left_shards(folder, marks))
    elif names:
        raise InputError(f"{folder} holds other files; choose a new folder for the shards")
    else:
        before, shards = None, []
    if before not in (None, asdict(preparation)):
        now = asdict(preparation)
        changed = ", ".join(name for name in now if before.get(name) != now[name])
        raise InputError(
            f"{folder} holds shards with another {changed}; remove it, or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SETTINGS, json.dumps(asdict(preparation)) + "\n")
    for shard in shards:  # as a torn preparation would have left them
        write_text(folder / f"{shard.name}.json", json.dumps(asdict(shard)) + "\n")
    (folder / MANIFEST).unlink(missing_ok=True)
    return {shard.name: shard for shard in shards}


def _left_shards(folder: epath.Path, names: Sequence[str]) -> Iterator[Shard]:
    for name in names:
        try:
            yield parse_shard(read_json(folder / name, dict, "prepare it again"))
        except (InputError, TypeError):  # torn; its shard is made anew
            logger.info("%s is damaged; its shard is made anew", folder / name)


def keep_or_write(
    folder: epath.Path,
    number: int,
    records: Sequence[TrainingRecord],
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
    known: Mapping[str, Shard],
) -> Shard:
    """Return the shard of some records, written anew unless it is known and whole.

    Args:
        folder: Where the shards are.
        number: Number of the shard.
        records: Its records.
        tokenizer: Tokenizer.
        preparation: How shards are made.
        known: Shards of before, by name.
    """
    name, mark = SHARD.format(number), records_digest(records)
    shard = known.get(name)
    if shard is not None and shard.source == mark and is_whole(folder, shard):
        return shard
    return write_shard(folder, name, mark, records, tokenizer, preparation)


def write_shard(
    folder: epath.Path,
    name: str,
    source: str,
    records: Sequence[TrainingRecord],
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
) -> Shard:
    """Align, pack and write the records of a shard, then the file that describes it.

    Args:
        folder: Where to.
        name: Name of the shard.
        source: Digest of the records.
        records: The records.
        tokenizer: Tokenizer.
        preparation: How.
    """
    try:
        examples, stats = align_records(
            records, tokenizer, max_length=preparation.max_length, match=preparation.match
        )
    except AlteredConversation as error:  # all of them are; other shards may have others
        logger.warning("%d of %d records are left out: %s", len(records), len(records), error)
        examples, stats = [], AlignmentStats(altered=len(records))
    if stats.unmatched:
        logger.warning("%s", stats.name_unmatched())
    end_ids = taught_end_ids(examples, tokenizer.all_special_ids)
    aligned = digest([to_bytes(example) for example in examples])
    if preparation.pack:
        examples = pack_examples(examples, length=preparation.max_length, seed=preparation.seed)
    content = array_record(examples)
    sizes = [len(example.tokens) for example in examples]
    shard = Shard(
        name=name,
        source=source,
        sha256=digest([content]),
        size=len(content),
        examples=aligned,
        sequences=len(examples),
        tokens=sum(sizes),
        longest=max(sizes, default=0),
        words=max((example.q_bits.shape[1] for example in examples), default=0),
        targets=max((int(x.target_mask.sum()) for x in examples), default=0),
        lengths=sorted(Counter(sizes).items()),
        end_ids=list(end_ids),
        stats=stats_fields(stats),
    )
    write_bytes(folder / name, content)
    write_text(folder / f"{name}.json", json.dumps(asdict(shard)) + "\n")
    return shard


def array_record(examples: Sequence[Example]) -> bytes:
    """Return the content of an ArrayRecord file of examples, each of which can be read alone."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for example in examples:
            writer.write(to_bytes(example))
        writer.close()
        return path.read_bytes()
