"""Ranges of numeric settings: declared in the type of a dataclass's field, checked by one function.

``steps: Annotated[int, Range(ge=1)]`` declares a range, also inside unions and tuples;
``check_ranges(self, "train")`` in ``__post_init__`` checks all fields of a dataclass.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cat_jax.errors import SettingError


@dataclass(frozen=True)
class Range:
    """An interval of numbers. NaN is in none, infinity only in one with ``le=math.inf``.

    Attributes:
        ge: Smallest value.
        gt: Bound that values exceed.
        le: Largest value.
        lt: Bound that values stay below.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: Any) -> bool:
        return (
            (math.isfinite(value) or self.le == math.inf)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        bounds = {
            "at least": self.ge,
            "greater than": self.gt,
            "at most": None if self.le == math.inf else self.le,
            "less than": self.lt,
        }
        named = [f"{words} {bound:,}" for words, bound in bounds.items() if bound is not None]
        is_open = self.le is None and self.lt is None
        return " and ".join([*named, *(["finite"] if is_open else [])])


INT32_MAX = 2**31 - 1
Count = Annotated[int, Range(ge=1, le=INT32_MAX)]
"""A number of things, of which there is at least one; steps are counted in int32."""
Seed = Annotated[int, Range(ge=0, le=2**32 - 1)]
"""Seed of random numbers; of a larger one JAX would drop the upper bits."""
Index = Annotated[int, Range()]
"""A place on an axis; negative ones count from its end."""
Bytes = Annotated[int, Range(ge=1)]
"""A size in memory or of a file."""
Share = Annotated[float, Range(ge=0, lt=1)]
"""Part of a whole, but not all of it."""


def check_ranges(settings: Any, section: str) -> None:
    """Check the numeric fields of a dataclass by the ranges that their types declare.

    Args:
        settings: Dataclass instance.
        section: Name of the dataclass in a configuration, such as ``train.mesh``; empty at the top.

    Raises:
        SettingError: A value is no number of its field's type, or out of its range.
    """
    for name, (kind, range_) in declared_ranges(type(settings)).items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None:
                _check(f"{section}.{name}".lstrip("."), number, kind, range_)


def check_number(name: str, value: Any, declared: Any) -> None:
    """Check one number, such as ``check_number("seed", seed, Seed)``.

    Raises:
        SettingError: As ``check_ranges``.
    """
    _check(name, value, *next(_ranges_in(declared)))


@cache
def declared_ranges(settings: type) -> dict[str, tuple[type, Range]]:
    """Return type and range of each field of a dataclass that declares one."""
    hints = get_type_hints(settings, include_extras=True)
    found = {name: next(_ranges_in(hint), None) for name, hint in hints.items()}
    return {name: declared for name, declared in found.items() if declared is not None}


def _ranges_in(hint: Any) -> Iterator[tuple[type, Range]]:
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        yield from ((kind, note) for note in notes if isinstance(note, Range))
    else:
        for part in get_args(hint):
            yield from _ranges_in(part)


def _check(name: str, value: Any, kind: type, range_: Range) -> None:
    wanted, described = (Integral, "a whole number") if kind is int else (Real, "a number")
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise SettingError(name, f"must be {described}, got {value!r}")
    if value not in range_:
        raise SettingError(name, f"must be {range_}, got {value}")
