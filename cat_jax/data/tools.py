"""Tools and tool calls of conversations, as JSON values that a chat template can render."""

import json
from collections.abc import Mapping
from typing import Any

from cat_jax.data.records import JsonNumber, present
from cat_jax.errors import InputError


def parse_tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a conversation may call, as JSON schemas of functions.

    Args:
        value: ``[{"type": "function", "function": {"name": .., "parameters": ..}}]``, the functions
            alone, or the JSON text of either.
        where: Place, for messages.

    Raises:
        InputError: A value of another form.
    """
    tools = _objects(_decoded(value), f"{where}, field 'tools'")
    for tool in tools:
        _function(tool, f"{where}, field 'tools'")
    return tools


def parse_tool_calls(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the calls of a message, with the arguments of each as an object.

    Args:
        value: ``[{"type": "function", "function": {"name": .., "arguments": {..}}}]`` or the
            functions alone. The arguments may be JSON text, as servers return them.
        where: Place, for messages.

    Raises:
        InputError: A value of another form.
    """
    place = f"{where}, field 'tool_calls'"
    return tuple(_with_arguments(call, place) for call in _objects(_decoded(value), place))


def json_values(value: Any, where: str) -> Any:
    """Return a JSON value with numbers as numbers, and objects without fields that are None.

    Raises:
        InputError: A part is no JSON value.
    """
    try:
        plain = _plain(value)
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: holds what is no JSON value ({error})") from error
    return plain


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the function of a tool or a call, which may stand in a field of this name."""
    return tool.get("function", tool)


def with_function(tool: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a tool or a call with other fields of its function."""
    if "function" in tool:
        return {**tool, "function": {**tool["function"], **changes}}
    return {**tool, **changes}


def _with_arguments(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    arguments = _decoded(_function(call, where).get("arguments") or {})
    if not isinstance(arguments, Mapping):
        raise InputError(f"{where}: the arguments of a call must be an object such as {{'x': 1}}")
    return with_function(call, arguments=arguments)


def _function(tool: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    function = function_of(tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{where}: a function has no 'name'; add it")
    return function


def _objects(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise InputError(f"{where}: must be a list of objects, each with a function's 'name'")
    return tuple(json_values(value, where))


def _decoded(value: Any) -> Any:
    """Return the value of JSON text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, JsonNumber):
        return json.loads(value)
    if isinstance(value, Mapping):
        return {name: _plain(of) for name, of in present(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
