"""GSM8K: grade school math with worked solutions.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems (2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cat_jax.data.records import Record
from cat_jax.tasks.base import TRAIN, VALIDATION
from cat_jax.tasks.number_task import ASKED, NumberTask
from cat_jax.tasks.published import field


@dataclass(frozen=True, kw_only=True)
class GSM8K(NumberTask):
    """GSM8K. A model learns the whole solution; the number after "#### " is its answer."""

    name: ClassVar[str] = "gsm8k"
    prior_name: ClassVar[str | None] = "steps"
    hub: ClassVar[str] = "hub:openai/gsm8k:main"
    files: ClassVar[Mapping[str, str]] = {
        TRAIN: "gsm8k_train.jsonl",
        VALIDATION: "gsm8k_val.jsonl",
        "iid": "gsm8k_test.jsonl",
    }
    validation: ClassVar[int | float] = 1_319

    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row with ``question`` and ``answer``."""
        question, answer = (str(field(row, name, where)) for name in ("question", "answer"))
        return Record(f"{question}{ASKED}", answer, where=where)
