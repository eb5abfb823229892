"""ASDiv: diverse math word problems of primary schools.

Source: Miao et al., A Diverse Corpus for Evaluating and Developing English Math Word Problem
Solvers (ACL 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cat_jax.data.records import Record
from cat_jax.tasks.base import TRAIN, VALIDATION
from cat_jax.tasks.number_task import ASKED, NumberTask
from cat_jax.tasks.published import field


@dataclass(frozen=True, kw_only=True)
class ASDiv(NumberTask):
    """ASDiv. Answers have their unit ("15 (balls)"); some are no number.

    The originals are one split, of which a quarter is set aside for validation; all of it serves
    as a test set of models that were trained on another data set.
    """

    name: ClassVar[str] = "asdiv"
    prior_name: ClassVar[str | None] = "math"
    equation_field: ClassVar[str] = "formula"
    hub: ClassVar[str] = "hub:EleutherAI/asdiv"
    files: ClassVar[Mapping[str, str]] = {
        TRAIN: "asdiv_train.jsonl",
        VALIDATION: "asdiv_val.jsonl",
        "iid": "asdiv_test.jsonl",
    }
    originals: ClassVar[Mapping[str, str]] = {TRAIN: "validation", VALIDATION: "validation"}

    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row with ``body``, ``question`` and ``answer``."""
        body, question, answer = (
            str(field(row, name, where)) for name in ("body", "question", "answer")
        )
        return Record(f"{body} {question}{ASKED}", answer, where=where)
