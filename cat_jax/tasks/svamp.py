"""SVAMP: simple variations on arithmetic math word problems.

Source: Patel et al., Are NLP Models really able to Solve Simple Math Word Problems? (NAACL 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cat_jax.data.records import Record
from cat_jax.tasks.base import TRAIN, VALIDATION
from cat_jax.tasks.number_task import NumberTask
from cat_jax.tasks.published import field


@dataclass(frozen=True, kw_only=True)
class SVAMP(NumberTask):
    """SVAMP. Body, question and "Answer: " are joined by full stops, as published."""

    name: ClassVar[str] = "svamp"
    prior_name: ClassVar[str | None] = "math"
    equation_field: ClassVar[str] = "Equation"
    hub: ClassVar[str] = "hub:ChilleD/SVAMP"
    files: ClassVar[Mapping[str, str]] = {
        TRAIN: "svamp_train.jsonl",
        VALIDATION: "svamp_val.jsonl",
        "iid": "svamp_test.jsonl",
    }

    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row with ``Body``, ``Question`` and ``Answer``."""
        body, question, answer = (
            str(field(row, name, where)) for name in ("Body", "Question", "Answer")
        )
        return Record(f"{body}. {question}. Answer: ", answer, where=where)
