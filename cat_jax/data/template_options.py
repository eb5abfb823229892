"""Options of chat templates: the date that a template prints, and variables that it reads.

Templates ask for today's date with ``strftime_now``, so the same records would give other tokens
tomorrow. Here the date is an option with a fixed default.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from functools import cache
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = "date"
DEFAULT_DATE = "2024-07-26"
"""Date of templates where none is stated: the one that Llama 3.1 and 3.2 write without a clock."""

CLOCK = "strftime_now"
FLAGS = ("", "-", "_", "0", "^", "#")
"""Flags of directives ("%-d") that the C library of Linux knows."""

OWN = {"messages", CLOCK}
"""Variables that every template is given; an option of this name would be lost."""


def check_template_options(options: Mapping[str, Any]) -> None:
    """Check the options that can be checked without a tokenizer.

    Raises:
        InputError: A name that is no variable of a template, or a date of another form.
    """
    for name in options:
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(
                f"the template option {name!r} is no variable of a chat template; name one by "
                "letters, digits and '_'"
            )
    _date(options)


def check_template_variables(
    tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, Any]
) -> None:
    """Check that every option reaches the template.

    Raises:
        InputError: An option is an argument of the tokenizer's ``apply_chat_template``.
    """
    for name in options:
        if name in OWN or name in _arguments(type(tokenizer).apply_chat_template):
            raise InputError(
                f"the template option {name!r} is an argument of apply_chat_template, no variable "
                "of the template; leave it out"
            )


def with_date(template: str, options: Mapping[str, Any]) -> str:
    """Return the template with a ``strftime_now`` that shows the date of the options, at midnight.

    It is a macro, because transformers hands no functions to templates. Templates that ask for no
    date stay as they are.

    Raises:
        InputError: A date of another form.
    """
    day = _date(options)
    return _clock(day) + template if CLOCK in template else template


@cache  # reading a signature takes as long as writing a conversation
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


@cache
def _clock(day: date) -> str:
    """Return a macro that replaces the directives of ``strftime``; a line that writes nothing."""
    midnight = datetime.combine(day, time())
    values = {
        directive: value
        for directive in ("%" + flag + letter for flag in FLAGS for letter in ascii_letters)
        if "%" not in (value := midnight.strftime(directive))
    }
    return (
        f"{{% macro {CLOCK}(format) %}}"
        "{% set text = namespace(now=format | replace('%%', '\\0')) %}"
        f"{{% for name, value in {json.dumps(values)}.items() %}}"
        "{% set text.now = text.now | replace(name, value) %}{% endfor %}"
        "{{ text.now | replace('\\0', '%') }}{% endmacro %}\n"
    )


def _date(options: Mapping[str, Any]) -> date:
    given = options.get(DATE, DEFAULT_DATE)
    try:
        day = date.fromisoformat(given)
    except (TypeError, ValueError):
        day = None
    if day is None or day.isoformat() != given:  # fromisoformat takes 20260131 too
        raise InputError(
            f"the template option 'date' is {given!r}; write a date as YYYY-MM-DD, such as "
            f"{DEFAULT_DATE}"
        )
    return day
