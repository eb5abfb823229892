"""Settings of the form NAME=VALUE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cat_jax.errors import InputError
from experiments.command_line import parse_arguments


@dataclass(frozen=True)
class Args:
    """Arguments.

    Attributes:
        values: JSON values.
        words: Text.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


def parse(*arguments):
    return parse_arguments(Args, args=arguments)


def test_values_are_json_where_they_can_be_and_text_elsewhere():
    assert parse() == Args()
    given = ("a=false", "b=2026-01-31", "c=x=y", 'd={"e": [1.5, null]}', "f=", 'g="3"', "h=NaN")
    assert parse("--values", *given).values == {
        "a": False,
        "b": "2026-01-31",
        "c": "x=y",
        "d": {"e": [1.5, None]},
        "f": "",
        "g": "3",
        "h": "NaN",
    }
    assert parse("--words", "a=false", "b=3").words == {"a": "false", "b": "3"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("a",), "expected NAME=VALUE, not 'a'"), (("=3",), "not '=3'"), (("a=1", "a=2"), "'a' is g")],
)
def test_what_is_no_mapping_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        parse("--values", *arguments)


def test_defaults_are_shown(capsys):
    default = Args({"a": False, "b": "x"}, {"c": "d"})
    assert parse_arguments(Args, args=(), default=default) == default
    with pytest.raises(SystemExit):
        parse_arguments(Args, args=["--help"], default=default)
    shown = capsys.readouterr().out
    assert "NAME=VALUE" in shown
    assert "a=false b=x" in shown
