"""Preparation of shards as an Apache Beam pipeline: the same files, written by many workers.

Needs the extra ``beam``. What workers find out reaches the caller through files of the folder, as
runners return nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
    PipelineOptions,
)
from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Match
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.shards.manifest import Manifest, Preparation, Shard
from cat_jax.data.shards.prepare import (
    begin,
    finish,
    first_chunk,
    keep_or_write,
    read_chunks,
)
from cat_jax.errors import InputError
from cat_jax.files import read_json, write_text

REFUSED = "shard-refused.json"
"""File with the sentence by which a worker refused the source."""


def prepare_data_with_beam(
    source: str | PathLike[str],
    out: str | PathLike[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    runner_options: Mapping[str, Any] | None = None,
    max_length: int = 256,
    match: Match = "offsets",
    pack: bool = False,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    template_options: Mapping[str, Any] | None = None,
    records_per_shard: int = 8_192,
) -> Manifest:
    """Prepare data as ``prepare_data`` does, byte for byte, on the workers of a Beam runner.

    One worker reads the source; all of them align and write shards.

    Args:
        source: Name of a source that all workers can read.
        out: Folder or ``gs://`` path that all workers can write.
        tokenizer: Tokenizer of the model to train.
        runner_options: Options of the pipeline, such as ``{"runner": "DirectRunner",
            "direct_num_workers": 4, "direct_running_mode": "multi_processing"}``.
        max_length: As of ``prepare_data``, like all that follow.
        match: How annotated words are found.
        pack: Pack several records of a shard into a sequence.
        seed: Seed of the packing.
        columns: Names of columns that are called otherwise.
        template_options: Variables of the chat template.
        records_per_shard: Records of each shard.

    Returns:
        The manifest.

    Raises:
        InputError: As of ``prepare_data``.
    """
    preparation = Preparation.of(
        tokenizer, max_length, match, pack=pack, seed=seed, records_per_shard=records_per_shard
    )
    reading = str(source), columns, template_options, records_per_shard
    first_chunk(read_chunks(*reading), str(source))
    folder = epath.Path(out)
    known = begin(folder, preparation)
    (folder / REFUSED).unlink(missing_ok=True)
    options = PipelineOptions.from_dictionary(dict(runner_options or {}))
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create([reading])
            | beam.FlatMap(_read)
            | WriteShards(str(out), tokenizer, preparation, known)
            | beam.combiners.ToList()
            | beam.Map(_finish, str(out), str(source), preparation)
        )
    if (folder / REFUSED).exists():
        refused = read_json(folder / REFUSED, dict, "prepare the data again")
        (folder / REFUSED).unlink()
        raise InputError(refused["error"])
    return Manifest.read(folder)


class WriteShards(beam.PTransform):
    """Align records and write them: from pairs of a number and records to ``Shard`` objects.

    A pair whose second part is a text, an error, goes through as it is.

    Args:
        folder: Folder or ``gs://`` path that all workers can write.
        tokenizer: Tokenizer of the model to train.
        preparation: How shards are made.
        known: Shards that an earlier preparation left, by name.
    """

    def __init__(
        self,
        folder: str,
        tokenizer: PreTrainedTokenizerBase,
        preparation: Preparation,
        known: Mapping[str, Shard],
    ):
        super().__init__()
        self._given = folder, tokenizer, preparation, dict(known)

    def expand(self, input_or_inputs: Any) -> Any:
        """Apply the transform; the records of a shard go to any worker."""
        return input_or_inputs | beam.Reshuffle() | beam.Map(_write, *self._given)


def _read(
    reading: tuple[str, Any, Any, int],
) -> Iterator[tuple[int, list[TrainingRecord] | str]]:
    number = -1
    try:
        for number, chunk in enumerate(read_chunks(*reading)):
            yield number, chunk
    except InputError as error:
        yield number + 1, str(error)


def _write(
    numbered: tuple[int, list[TrainingRecord] | str],
    folder: str,
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
    known: Mapping[str, Shard],
) -> tuple[int, Shard | str]:
    number, records = numbered
    if isinstance(records, str):
        return number, records
    try:
        shard = keep_or_write(epath.Path(folder), number, records, tokenizer, preparation, known)
    except InputError as error:
        return number, str(error)
    return number, shard


def _finish(
    found: Iterable[tuple[int, Shard | str]], folder: str, source: str, preparation: Preparation
) -> None:
    """Write the manifest, or the sentence of the first error."""
    made = [part for _, part in sorted(found, key=lambda pair: pair[0])]
    shards = [part for part in made if isinstance(part, Shard)]
    try:
        for part in made:
            if isinstance(part, str):
                raise InputError(part)
        finish(epath.Path(folder), Manifest(source, preparation, shards))
    except InputError as error:
        write_text(epath.Path(folder) / REFUSED, json.dumps({"error": str(error)}))
