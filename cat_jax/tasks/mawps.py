"""MAWPS: math word problems of four kinds.

Source: Koncel-Kedziorski et al., MAWPS: A Math Word Problem Repository (NAACL 2016); annotated by
Han et al. (EMNLP 2025) with two assistants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cat_jax.data.records import Record
from cat_jax.tasks.base import TRAIN, VALIDATION
from cat_jax.tasks.number_task import ASKED, NumberTask
from cat_jax.tasks.published import field


@dataclass(frozen=True, kw_only=True)
class MAWPS(NumberTask):
    """MAWPS. Published training files have "Answer: " in the target; here it ends the prompt.

    Attributes:
        annotator: Which assistant's annotations of the training records.
    """

    annotator: Literal["glm", "gpt4o"] = "glm"

    name: ClassVar[str] = "mawps"
    prior_name: ClassVar[str | None] = "math"
    equation_field: ClassVar[str] = "expression"
    hub: ClassVar[str] = "hub:MU-NLPC/Calc-mawps"

    @property
    def files(self) -> Mapping[str, str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the published file by split."""
        train = "mawps_train_gpt4o.jsonl" if self.annotator == "gpt4o" else "mawps_train.jsonl"
        return {TRAIN: train, VALIDATION: "mawps_val.jsonl", "iid": "mawps_test.jsonl"}

    @property
    def has_equations(self) -> bool:
        """Tell whether rows have equations: the published files left them out."""
        return self.folder is None

    def published_fields(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Move "Answer: " from the target to the prompt."""
        target = str(row.get("target", ""))
        if not target.startswith(ASKED.strip()):
            return row
        return {
            **row,
            "input": f"{str(row.get('input', '')).rstrip()}{ASKED}",
            "target": target.removeprefix(ASKED.strip()).strip(),
        }

    def original_record(self, row: Mapping[str, Any], where: str) -> Record:
        """Return the record of a row with ``question`` and ``result``."""
        asked, answer = (str(field(row, name, where)) for name in ("question", "result"))
        return Record(f"{asked.rstrip()}{ASKED}", answer, where=where)
