"""ARC-Easy: science questions of primary schools, with choices.

Source: Clark et al., Think you have Solved Question Answering? Try ARC (2018).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.answers import parse_choice
from cat_jax.tasks.base import TRAIN, VALIDATION, Intervention, Rule
from cat_jax.tasks.edits import draw_order, reorder_text, replace_answer
from cat_jax.tasks.published import PublishedTask, field
from cat_jax.tasks.rules import majority_rule

_CHOICE = re.compile(r"^(\w)\. (.*)$", re.MULTILINE)
_REFERS = re.compile(
    r"(?i:\b(above|below|preceding|following)\b)|\b([A-E]|[1-5]) (and|or|nor) ([A-E]|[1-5])\b"
)
"""A choice that names others by their place."""


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

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return "reorder", which permutes the choices; the answer's label follows."""
        return {"reorder": reorder_choices}

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the majority, and the rule that takes the longest choice."""
        training = [record for record in self.records(TRAIN, seed) if isinstance(record, Record)]
        return {"majority": majority_rule(training), "longest choice": longest_choice}


def read_choices(prompt: str) -> dict[str, str]:
    """Return the choices of a prompt by label, in their order."""
    return {choice[1]: choice[2] for choice in _CHOICE.finditer(prompt)}


def reorder_choices(record: Record, rng: np.random.Generator) -> Record:
    """Permute the choices; labels stay in their order, and the answer is the right one's new label.

    A record stays as it is if a choice refers to others ("both A and B", "all of the above"), if
    two have one label, or if the answer is no label.
    """
    choices = list(_CHOICE.finditer(record.input))
    labels = [choice[1] for choice in choices]
    refers = any(_REFERS.search(choice[2]) for choice in choices)
    if refers or len(set(labels)) < len(labels) or record.target not in labels:
        return record
    order = draw_order(len(choices), rng)
    lines = [f"{label}. {choices[n][2]}" for label, n in zip(labels, order, strict=True)]
    target = labels[order.index(labels.index(record.target))]
    parts = [range(*choice.span()) for choice in choices]
    return replace_answer(reorder_text(record, parts, order, lines), target)


def longest_choice(record: Record) -> str:
    """Take the longest choice, of equally long ones the first."""
    choices = read_choices(record.input)
    return max(choices, key=lambda label: len(choices[label]))
