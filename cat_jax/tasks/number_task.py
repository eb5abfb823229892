"""Math word problems whose answer is a number."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from cat_jax.data.records import Record
from cat_jax.tasks.answers import format_number, numbers_agree, parse_number
from cat_jax.tasks.base import TRAIN, Rule
from cat_jax.tasks.published import PublishedTask
from cat_jax.tasks.rules import majority_rule

ASKED = " Answer: "


@dataclass(frozen=True, kw_only=True)
class NumberTask(PublishedTask):
    """A task whose answers are compared as numbers; prompts end in "Answer: "."""

    def parse_answer(self, text: str) -> str:
        """Return the number that a text answers with, or the text."""
        return parse_number(text)

    def is_right(self, answer: str, target: str) -> bool:
        """Compare numbers; a target without a number (a day, a ratio) by its words."""
        right = self.parse_answer(target)
        return numbers_agree(answer, right) or answer.casefold() == right.casefold()

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the majority, and rules that compute with all numbers of the text."""
        records = self.records(TRAIN, seed) if TRAIN in self.splits else []
        known = [record for record in records if isinstance(record, Record)]
        return ({"majority": majority_rule(known)} if known else {}) | dict(RULES)


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
