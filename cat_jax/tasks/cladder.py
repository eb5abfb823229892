"""CLadder: questions about small causal models, to be answered with yes or no.

Source: Jin et al., CLadder: Assessing Causal Reasoning in Language Models (NeurIPS 2023).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.readers import open_items
from cat_jax.data.records import Record
from cat_jax.errors import SettingError
from cat_jax.tasks.answers import parse_yes_no
from cat_jax.tasks.base import TRAIN, VALIDATION, Rule, Task
from cat_jax.tasks.published import SPLIT_SEED, field
from cat_jax.tasks.rules import majority_rule

SHARES = {VALIDATION: 0.1, "iid": 0.2, TRAIN: 0.7}
"""Shares of the questions of the stories that training tells."""
HELD_OUT = 0.2
"""Share of the stories that only "ood" tells."""


@dataclass(frozen=True, kw_only=True)
class CLadder(Task):
    """CLadder. "ood" asks about stories that training never told. Nothing is annotated.

    Attributes:
        file: The questions, as published: one JSON file of all.
    """

    file: str = ""

    name: ClassVar[str] = "cladder"

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return TRAIN, VALIDATION, "iid", "ood"

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Read the questions and divide them, always in the same way.

        Raises:
            InputError: The file is not given, cannot be read, or lacks a field.
        """
        if not self.file:
            raise SettingError("data.file", "is empty; name CLadder's JSON file")
        stories: dict[str, list[Record]] = {}
        for where, row in open_items(self.file):
            stories.setdefault(field(row, "meta", where)["story_id"], []).append(
                to_record(row, where)
            )
        names = _shuffled(sorted(stories))
        count = max(1, round(HELD_OUT * len(names)))
        if split == "ood":
            return [record for name in names[:count] for record in stories[name]]
        told = _shuffled(record for name in names[count:] for record in stories[name])
        start = 0
        for part, share in SHARES.items():
            stop = len(told) if part == TRAIN else start + round(share * len(told))
            if part == split:
                break
            start = stop
        return list(told[start:stop])

    def parse_answer(self, text: str) -> str:
        """Return "yes" or "no"."""
        return parse_yes_no(text)

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the majority."""
        training = [record for record in self.records(TRAIN, seed) if isinstance(record, Record)]
        return {"majority": majority_rule(training)}


def to_record(row: Mapping[str, Any], where: str) -> Record:
    """Return the record of a question: what is given, what is asked, "yes" or "no"."""
    given, asked, answer = (
        str(field(row, name, where)).strip() for name in ("given_info", "question", "answer")
    )
    return Record(f"{given} {asked} Answer: ", answer, where=where)


def _shuffled(items: Any) -> list[Any]:
    found = list(items)
    random.Random(SPLIT_SEED).shuffle(found)
    return found
