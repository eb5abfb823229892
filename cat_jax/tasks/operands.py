"""Word problems with other numbers: operands of a known equation redrawn, the answer computed."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from cat_jax.annotation.equations import CHAIN, NUMBER
from cat_jax.data.records import Record
from cat_jax.tasks.answers import format_number
from cat_jax.tasks.edits import replace_text

DRAWS = 1_000
"""Draws after which a record stays as it is; a quotient of two is whole in one of some dozens."""

_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def redraw_operands(record: Record, equation: str, rng: np.random.Generator) -> Record:
    """Redraw the numbers of the prompt that an equation uses, and compute the new answer.

    An operand is a number from 2 on that stands once in the equation and once in the prompt, in
    digits; other numbers, such as the 100 of a percentage, stay. It is drawn between half and
    twice its value, with as many decimals, and not below 2. What the equation computes, step by
    step, stays positive where it was, whole where it was, and otherwise as fine a fraction.

    Args:
        record: A record whose answer is one number, perhaps with a unit.
        equation: Such as "( 8.0 - 2.0 )", "X=8.0-2.0" or "8-2=6".
        rng: Draws the operands.

    Returns:
        The new record; the same one where the equation is of another form, has no operand or does
        not give the answer, or where no draw is as said.
    """
    formula = _formula(equation)
    answers = list(NUMBER.finditer(record.target))
    if formula is None or len(answers) != 1:
        return record
    places, old = _operands(record.input, formula), _steps(formula, {})
    if not places or not old or old[-1] != _value(answers[0][0]):
        return record
    for _ in range(DRAWS):
        drawn = {value: _draw(place[0], rng) for value, place in places.items()}
        new = _steps(formula, drawn)
        is_new = any(value != other for value, other in drawn.items())
        if new and is_new and all(map(_is_like, new, old)):
            break
    else:
        return record
    edits = [(*place.span(), _written(place[0], drawn[x])) for x, place in places.items()]
    start, stop = (len(record.input) + place for place in answers[0].span())
    return replace_text(record, [*sorted(edits), (start, stop, _written(answers[0][0], new[-1]))])


def _formula(equation: str) -> str | None:
    """Return the side of an equation that computes something."""
    sides = [side.strip() for side in equation.split("=")]
    found = [side for side in sides if CHAIN.fullmatch(side) and len(NUMBER.findall(side)) > 1]
    return found[0] if len(found) == 1 else None


def _operands(prompt: str, formula: str) -> dict[Fraction, re.Match[str]]:
    """Return the operands by value, with their places in the prompt; parts of "3/4" are none."""
    used = [_value(number[0]) for number in NUMBER.finditer(formula)]
    given = list(NUMBER.finditer(prompt))
    values = [_value(number[0]) for number in given]
    return {
        value: number
        for value, number in zip(values, given, strict=True)
        if value >= 2
        and used.count(value) == values.count(value) == 1
        and not re.search(r"[/:]$", prompt[: number.start()])
        and not re.match(r"[/:]", prompt[number.end() :])
    }


def _steps(formula: str, values: Mapping[Fraction, Fraction]) -> list[Fraction]:
    """Return the result of every operation, the last one last; none of a formula without value.

    Args:
        formula: Numbers, + - * / and brackets.
        values: Values in the place of others.
    """
    numbers: list[Fraction] = []

    def name(number: re.Match[str]) -> str:
        numbers.append(_value(number[0]))
        return f"n{len(numbers) - 1}"

    steps: list[Fraction] = []

    def compute(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Name):
            value = numbers[int(node.id[1:])]
            return values.get(value, value)
        if not isinstance(node, ast.BinOp):
            raise SyntaxError("neither a number nor an operation of two")
        left, right = compute(node.left), compute(node.right)
        steps.append(_OPERATIONS[type(node.op)](left, right))
        return steps[-1]

    try:
        compute(ast.parse(NUMBER.sub(name, formula), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, KeyError):  # a power is no operation of the four
        return []
    return steps


def _draw(number: str, rng: np.random.Generator) -> Fraction:
    scale = 10 ** _decimals(number)
    units = int(_value(number) * scale)
    return Fraction(int(rng.integers(max(math.ceil(units / 2), 2 * scale), 2 * units + 1)), scale)


def _is_like(new: Fraction, old: Fraction) -> bool:
    return (new > 0 or old <= 0) and old.denominator % new.denominator == 0


def _written(number: str, value: Fraction) -> str:
    """Write a value like a number: with its decimals and its commas."""
    decimals = _decimals(number)
    scaled = value * 10**decimals
    if scaled.denominator > 1:
        return format_number(value)
    whole, rest = divmod(scaled.numerator, 10**decimals)
    shown = f"{whole:,}" if "," in number else str(whole)
    return f"{shown}.{rest:0{decimals}d}" if decimals else shown


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))
