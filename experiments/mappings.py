"""Settings that are mappings, as NAME=VALUE on the command line."""

import json
from collections.abc import Mapping
from typing import Any, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from cat_jax.errors import InputError

REGISTRY = ConstructorRegistry()
"""Within ``with REGISTRY:``, tyro reads fields of type ``Mapping[str, ...]``."""


@REGISTRY.primitive_rule
def mapping_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Mapping[str, Any]] | None:
    """Read a mapping from ``NAME=VALUE ...``; values are JSON where they can be, unless text."""
    if info.type_origin is not Mapping:
        return None
    is_text = get_args(info.type)[1] is str
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=lambda given: parse_mapping(given, is_text=is_text),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda mapping: [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in mapping.items()
        ],
    )


def parse_mapping(given: list[str], *, is_text: bool) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` arguments.

    Args:
        given: The arguments.
        is_text: Whether values are text; otherwise JSON values, or text where they are none.

    Raises:
        InputError: An argument has no "=" or no name, or a name occurs twice.
    """
    mapping: dict[str, Any] = {}
    for argument in given:
        name, equals, value = argument.partition("=")
        if not (name and equals):
            raise InputError(f"expected NAME=VALUE, not {argument!r}")
        if name in mapping:
            raise InputError(f"{name!r} is given twice: {argument!r}; remove one")
        mapping[name] = value if is_text else _value(value)
    return mapping


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
