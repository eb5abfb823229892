"""ARC-Easy: science questions of primary schools, with choices.

Source: Clark et al., Think you have Solved Question Answering? Try ARC (2018).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.answers import parse_choice
from cat_jax.tasks.base import TRAIN, VALIDATION, Rule
from cat_jax.tasks.published import PublishedTask, field
from cat_jax.tasks.rules import majority_rule


@dataclass(frozen=True, kw_only=True)
class ARC(PublishedTask):
    """ARC-Easy. The prompt lists the choices as "A. ..." lines; the answer is a label."""

    name: ClassVar[str] = "arc"
    prior_name: ClassVar[str | None] = "choice"
    hub: ClassVar[str] = "hub:allenai/ai2_arc:ARC-Easy"
    files: ClassVar[Mapping[str, str]] = {
        TRAIN: "arc_e_train.jsonl",
        VALIDATION: "arc_e_val.jsonl",
        "iid": "arc_e_test.jsonl",
    }

    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row with ``question``, ``choices`` and ``answerKey``."""
        question, choices, key = (
            field(row, n, where) for n in ("question", "choices", "answerKey")
        )
        labels, texts = choices["label"], choices["text"]
        if key not in labels:
            raise InputError(f"{where}, field 'answerKey': {key!r} is none of {', '.join(labels)}")
        listed = "".join(f"{a}. {b}\n" for a, b in zip(labels, texts, strict=True))
        return Record(f"{question}\n{listed}Answer: ", key, where=where)

    def parse_reply(self, text: str, record: TrainingRecord) -> str:
        """Return the label that a text chooses among the choices of the prompt."""
        assert isinstance(record, Record)
        return parse_choice(text, read_choices(record.input))

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the majority, and the rule that takes the longest choice."""
        training = [record for record in self.records(TRAIN, seed) if isinstance(record, Record)]
        return {"majority": majority_rule(training), "longest choice": longest_choice}


def read_choices(prompt: str) -> dict[str, str]:
    """Return the choices of a prompt by label, in their order."""
    return dict(re.findall(r"^(\w)\. (.*)$", prompt, re.MULTILINE))


def longest_choice(record: Record) -> str:
    """Take the longest choice, of equally long ones the first."""
    choices = read_choices(record.input)
    return max(choices, key=lambda label: len(choices[label]))
