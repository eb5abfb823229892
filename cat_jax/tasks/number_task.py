"""Math word problems whose answer is a number."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

import numpy as np

from cat_jax.data.records import Record
from cat_jax.tasks.answers import format_number, numbers_agree, parse_number
from cat_jax.tasks.base import TRAIN, Intervention, Rule
from cat_jax.tasks.people import rename_people
from cat_jax.tasks.published import PublishedTask
from cat_jax.tasks.rules import majority_rule

ASKED = " Answer: "


@dataclass(frozen=True, kw_only=True)
class NumberTask(PublishedTask):
    """A task whose answers are compared as numbers; prompts end in "Answer: "."""

    equation_field: ClassVar[str] = ""
    """Field of a row with the equation that gives its answer; empty where there is none."""

    def parse_answer(self, text: str) -> str:
        """Return the number that a text answers with, or the text."""
        return parse_number(text)

    def is_right(self, answer: str, target: str) -> bool:
        """Compare numbers; a target without a number (a day, a ratio) by its words."""
        right = self.parse_answer(target)
        return numbers_agree(answer, right) or answer.casefold() == right.casefold()

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return "rename", of people, and "causal" if rows have an equation.

        A record that cannot be edited stays as it is: no known name, or no equation whose numbers
        stand in the prompt.
        """
        causal = {"causal": self.redraw_causal} if self.has_equations else {}
        return {**causal, "rename": rename_people}

    @property
    def has_equations(self) -> bool:
        """Tell whether the rows come with equations."""
        return bool(self.equation_field)

    def redraw_causal(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the numbers that the row's equation uses; it gives the new answer."""
        # Here, because it imports the annotation package, which is slow to start.
        from cat_jax.tasks.operands import redraw_operands

        equation = self.equation_of(record.input)
        return record if equation is None else redraw_operands(record, equation, rng)

    def equation_of(self, prompt: str) -> str | None:
        """Return the equation of the row that asks this; None if no row does, or it has none.

        Raises:
            InputError: A split cannot be read, and those read before it do not ask this.
        """
        for split in reversed(self.splits):  # training records last
            if prompt in (known := _equations(self, split)):
                return known[prompt]
        return None

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the majority, and rules that compute with all numbers of the text."""
        records = self.records(TRAIN, seed) if TRAIN in self.splits else []
        known = [record for record in records if isinstance(record, Record)]
        return ({"majority": majority_rule(known)} if known else {}) | dict(RULES)


@cache
def _equations(task: NumberTask, split: str) -> dict[str, str | None]:
    """Return the equations of a split by prompt."""
    rows = task.read_rows(split)
    return {record.input: _text(row.get(task.equation_field)) for record, row in rows}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def text_numbers(record: Record) -> list[Fraction]:
    """Return the whole and decimal numbers of a prompt, in its order."""
    found = re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", record.input)
    return [Fraction(number.replace(",", "")) for number in found]


def _last(record: Record) -> str:
    return format_number((text_numbers(record) or [Fraction(0)])[-1])


def _sum(record: Record) -> str:
    return format_number(sum(text_numbers(record), Fraction(0)))


def _difference(record: Record) -> str:
    numbers = text_numbers(record) or [Fraction(0)]
    return format_number(max(numbers) - min(numbers))


def _product(record: Record) -> str:
    return format_number(math.prod(text_numbers(record), start=Fraction(1)))


RULES: dict[str, Rule] = {
    "last number": _last,
    "sum": _sum,
    "difference": _difference,
    "product": _product,
}
