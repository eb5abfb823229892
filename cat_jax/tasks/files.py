"""A task made of a user's own files."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError
from cat_jax.tasks.base import TRAIN, VALIDATION, Task


@dataclass(frozen=True, kw_only=True)
class Files(Task):
    """Your own records: prompts and answers, conversations, or texts (docs/finetuning.md).

    Attributes:
        train: JSONL file of the training records.
        validation: JSONL file of records to measure the loss on.
        validation_share: Share of the training records to set aside for validation instead.
        iid: JSONL test file distributed like the training data.
        ood: JSONL test file in which the spurious correlations are broken.
    """

    train: str
    validation: str | None = None
    validation_share: float = 0.0
    iid: str | None = None
    ood: str | None = None

    name: ClassVar[str] = "files"

    def __post_init__(self):
        if not 0 <= self.validation_share < 1:
            raise InputError(
                f"data.validation_share is a share from 0 to below 1, got {self.validation_share}"
            )
        if self.validation is not None and self.validation_share:
            raise InputError(
                "data.validation names a file and data.validation_share asks for training records; "
                "give one of them"
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
            return read_records(getattr(self, split))
        kept, set_aside = self._divided(read_records(self.train), seed)
        return kept if split == TRAIN else set_aside

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
