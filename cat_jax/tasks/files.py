"""A task made of a user's own files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.sources import read_records
from cat_jax.data.template_options import check_template_options
from cat_jax.errors import InputError, SettingError
from cat_jax.ranges import Share, check_ranges
from cat_jax.tasks.base import TRAIN, VALIDATION, Task


@dataclass(frozen=True, kw_only=True)
class Files(Task):
    """Your own records: prompts and answers, conversations, or texts (docs/finetuning.md).

    Attributes:
        train: Training records: a file, folder, or name such as hub:REPO:SPLIT (docs/data.md), or a
            folder of prepared shards. None is a task to test on alone.
        validation: Records to measure the loss on.
        validation_share: Share of the training records to set aside for validation instead.
        iid: Test records distributed like the training data.
        ood: Test records in which the spurious correlations are broken.
        columns: Names of the columns of all files whose fields are called otherwise
            (input=question target=answer important=causes).
        template_options: Variables of the chat template of all files (enable_thinking=false), and
            the date that it prints (date=2026-01-31; 2024-07-26 where none is given).
    """

    train: str | None = None
    validation: str | None = None
    validation_share: Share = 0.0
    iid: str | None = None
    ood: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    template_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    name: ClassVar[str] = "files"

    def __post_init__(self):
        check_ranges(self, "data")
        check_template_options(self.template_options)
        for name in (TRAIN, VALIDATION, "iid", "ood"):
            if getattr(self, name) == "":
                raise SettingError(f"data.{name}", "is empty; name a file, or leave it out")
        if self.validation is not None and self.validation_share:
            raise InputError(
                "data.validation names a file and data.validation_share asks for training records; "
                "give one of them"
            )
        if self.train is None and self.validation_share:
            raise SettingError(
                "data.validation_share", "is a share of data.train, which names no file; give both"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that have a file or a share."""
        given = {
            TRAIN: self.train,
            VALIDATION: self.validation or self.validation_share,
            "iid": self.iid,
            "ood": self.ood,
        }
        return tuple(split for split, source in given.items() if source)

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Read the file of a split; the seed draws the records that are set aside.

        Raises:
            InputError: A file cannot be read, or the share leaves no record on one side.
        """
        if split not in (TRAIN, VALIDATION) or (split == VALIDATION and self.validation):
            return self.read_file(getattr(self, split))
        assert self.train is not None  # it is a split
        kept, set_aside = self._divided(self.read_file(self.train), seed)
        return kept if split == TRAIN else set_aside

    def training_data(self, seed: int = 0) -> Sequence[TrainingRecord] | Sequence[Example]:
        """Return the training records, or the examples of prepared shards.

        Raises:
            InputError: They cannot be read, or a setting is for records and there are shards.
        """
        from cat_jax.data.shards import ShardedExamples, is_prepared  # imports JAX

        if self.train is None or not is_prepared(self.train):
            return self.records(TRAIN, seed)
        if self.validation_share:
            raise InputError(
                f"data.validation_share: {self.train} holds prepared shards, of which no records "
                "can be set aside; name a file with data.validation"
            )
        unused = [n for n in ("columns", "template_options") if getattr(self, n)]
        if unused and self.splits == (TRAIN,) and not self.test_files:
            raise InputError(
                f"data.{unused[0]}: {self.train} holds prepared shards, and there is no other file "
                "to read; give it to prepare_data"
            )
        return ShardedExamples(self.train)

    def read_file(self, file: str) -> list[TrainingRecord]:
        """Read a file with the settings of this task.

        Raises:
            InputError: It cannot be read.
        """
        return read_records(file, columns=self.columns, template_options=self.template_options)

    def _divided(
        self, records: list[TrainingRecord], seed: int
    ) -> tuple[list[TrainingRecord], list[TrainingRecord]]:
        count = round(self.validation_share * len(records))
        if self.validation_share and not 0 < count < len(records):
            raise InputError(
                f"data.validation_share {self.validation_share} of {len(records)} records sets "
                f"{count} of them aside; choose another share, or name a file with data.validation"
            )
        drawn = set(np.random.default_rng(seed).permutation(len(records))[:count].tolist())
        return (
            [record for number, record in enumerate(records) if number not in drawn],
            [record for number, record in enumerate(records) if number in drawn],
        )
