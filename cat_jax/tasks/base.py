"""The Task protocol: what a benchmark, or a user's own files, give to training and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cat_jax.collector import collector_paused
from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.readers import source_name
from cat_jax.data.records import Record, Span
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from cat_jax.annotation import Prior

Intervention = Callable[[Record, np.random.Generator], Record]
"""Edits a record's text; the target of the new record is the right answer after the edit."""
Rule = Callable[[Record], str]
"""Answers a record without a model."""

TRAIN, VALIDATION = "train", "validation"
CUE_AGREES, CUE_DISAGREES = "cue agrees", "cue disagrees"
"""Groups of records by whether what is spurious points to the right answer."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A benchmark: its records by split, how answers are judged, and what is known about them.

    A subclass is one file. It must give ``name``, ``splits`` and ``make_records``; the rest has
    defaults that claim nothing. Fields of the subclass are its settings, on the command line too.

    Attributes:
        test_files: Further test sets, as files or other sources (docs/data.md); each is reported
            under the name of its file.
    """

    test_files: tuple[str, ...] = ()

    name: ClassVar[str]
    """Name in reports."""
    prior_name: ClassVar[str | None] = None
    """Causal prior that its records are annotated by; a name for ``read_prior``."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Splits that ``make_records`` knows: "train", perhaps "validation", and test sets."""

    @abstractmethod
    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Return the records of one of ``splits``; the same seed gives the same records."""

    @collector_paused()
    def records(self, split: str, seed: int = 0) -> list[TrainingRecord]:
        """Return the records of a split or, by its file name, of a test file.

        Raises:
            InputError: no such split, or its file cannot be read.
        """
        files = self._files()
        if split in files:
            return self.read_file(files[split])
        if split not in self.splits:
            known = ", ".join((*self.splits, *files))
            raise InputError(f"task {self.name} has no split {split!r}; there are {known}")
        return self.make_records(split, seed)

    def iter_records(self, split: str, seed: int = 0) -> Iterator[TrainingRecord]:
        """Yield the same; a task that generates its records need not hold them all at once."""
        return iter(self.records(split, seed))

    def training_data(self, seed: int = 0) -> Sequence[TrainingRecord] | Sequence[Example]:
        """Return what to train on: the records of "train", or prepared shards of them.

        Raises:
            InputError: They cannot be read.
        """
        return self.records(TRAIN, seed)

    def read_file(self, file: str) -> list[TrainingRecord]:
        """Read a test file.

        Raises:
            InputError: It cannot be read.
        """
        return read_records(file)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits to evaluate: all but "train" and "validation", then the test files."""
        own = (split for split in self.splits if split not in (TRAIN, VALIDATION))
        return (*own, *self._files())

    def parse_answer(self, text: str) -> str:
        """Return the answer within what a model wrote."""
        return text.strip()

    def parse_reply(self, text: str, record: TrainingRecord) -> str:
        """Return the same where it depends on what was asked, such as on the choices."""
        return self.parse_answer(text)

    def is_right(self, answer: str, target: str) -> bool:
        """Tell whether a parsed answer is as good as the target."""
        return answer == self.parse_answer(target)

    def measures(self, answer: str, target: str) -> Mapping[str, float]:
        """Return further figures of a parsed answer; each is averaged over a test set, NaN not.

        Names that start with "within" are shares; "absolute_error" is in units of the answer.
        """
        return {}

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Edits of a record by name.

        "spurious" redraws what must not matter, "causal" what the answer depends on, "irrelevant"
        what neither causes the answer nor follows its causes; "reorder" states the same facts in
        another order, "rename" with other names. A record without anything to edit is returned.
        """
        return {}

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return where a record names its spurious factors, as far as known."""
        return []

    def group(self, record: TrainingRecord) -> str | None:
        """Return the group of a record, such as "cue agrees" or "cue disagrees"; None: not known.

        Worst-group scores and the method ``group_reweighting`` read it (Sagawa et al., ICLR 2020).
        """
        return None

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return rules to compare a model with: "oracle", "shortcut", "majority"."""
        return {}

    @property
    def prior(self) -> "Prior":
        """Return the causal prior, from which an assistant annotates.

        Raises:
            InputError: The task has none.
        """
        from cat_jax.annotation import read_prior

        if self.prior_name is None:
            raise InputError(
                f"task {self.name} has no causal prior; write one (docs/annotation.md)"
            )
        return read_prior(self.prior_name)

    def as_published(self) -> "Task":
        """Return the same records with the annotations that the paper's data has."""
        return self

    def _files(self) -> dict[str, str]:
        files: dict[str, str] = {}
        for file in self.test_files:
            name = source_name(file)
            if name in files or name in self.splits:
                raise InputError(
                    f"data.test_files: two test sets are named {name!r}; rename {file}"
                )
            files[name] = file
        return files
