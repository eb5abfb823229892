"""Tasks from published data sets: annotated files of the paper, or the originals of the hub."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.readers import open_items
from cat_jax.data.records import Record, parse_record
from cat_jax.errors import InputError
from cat_jax.tasks.base import TRAIN, VALIDATION, Task

SPLIT_SEED = 42
"""Seed of the published validation split."""


@dataclass(frozen=True, kw_only=True)
class PublishedTask(Task):
    """Records of a published data set.

    Attributes:
        folder: Folder with the annotated files of the paper; None reads the originals, which have
            no annotations.
        source: The originals: a data set of the hub (perhaps with a revision) or a folder that
            ``datasets`` saved; the split is added to it.
        ood: A published file of another data set, as a test set out of distribution.
    """

    folder: str | None = None
    source: str = ""
    ood: str | None = None

    hub: ClassVar[str]
    """Name of the originals."""
    files: ClassVar[Mapping[str, str]]
    """File in ``folder`` by split."""
    originals: ClassVar[Mapping[str, str]] = {TRAIN: "train", VALIDATION: "train", "iid": "test"}
    """Split of the originals by split."""
    validation: ClassVar[int | float] = 0.25
    """Training rows of the originals to set aside, or their share."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that there are files for, or originals."""
        own = self.originals if self.folder is None else self.files
        return (*own, *(("ood",) if self.ood is not None else ()))

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Read a split; the seed does not matter, the published splits are fixed.

        Raises:
            InputError: It cannot be read, or a row lacks a field.
        """
        return [record for record, _ in self.read_rows(split)]

    def read_rows(self, split: str) -> Iterator[tuple[Record, Mapping[str, Any]]]:
        """Yield the records of a split with the rows that they were read from.

        Raises:
            InputError: It cannot be read, or a row lacks a field.
        """
        if split == "ood" or self.folder is not None:
            file = (
                (self.ood or "") if split == "ood" else Path(self.folder or "") / self.files[split]
            )
            for where, row in open_items(file):
                yield self.published_record(row, where), row
            return
        rows = list(open_items(f"{self.source or self.hub}:{self.originals[split]}"))
        if self.originals.get(VALIDATION) == self.originals[split]:
            kept, aside = set_aside(rows, self.validation)
            rows = aside if split == VALIDATION else kept
        for where, row in rows:
            yield self.original_record(row, where), row

    def published_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of an annotated row, in the form in which every split asks."""
        return parse_record(self.published_fields(with_causes(row)), where)

    def published_fields(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields ``input``, ``target`` and ``important`` of an annotated row."""
        return row

    @abstractmethod
    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row of the originals.

        Raises:
            InputError: The row lacks a field.
        """


def with_causes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the effects for which the published annotation names no cause.

    There is one in the published files, in the annotation of MAWPS by GPT-4o.
    """
    notes = row.get("important")
    if not isinstance(notes, list) or not all(isinstance(note, Mapping) for note in notes):
        return dict(row)
    return {**row, "important": [note for note in notes if any(note.values())]}


def set_aside(rows: Iterable[Any], count: int | float) -> tuple[list[Any], list[Any]]:
    """Divide rows into kept ones and a number or share of them drawn by the published seed.

    As ``train_test_split`` of scikit-learn with ``random_state=42``, so as published.
    """
    given = list(rows)
    number = math.ceil(count * len(given)) if isinstance(count, float) else count
    if number >= len(given):
        raise InputError(f"{number} of {len(given)} rows cannot be set aside; give more rows")
    order = np.random.RandomState(SPLIT_SEED).permutation(len(given)).tolist()
    return [given[i] for i in order[number:]], [given[i] for i in order[:number]]


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Return a field of a row.

    Raises:
        InputError: It is missing.
    """
    if row.get(name) is None:
        raise InputError(
            f"{where}, field {name!r}: missing; there are {', '.join(map(str, row))}, so this is "
            "another data set"
        )
    return row[name]
