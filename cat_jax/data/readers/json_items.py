"""Objects of JSON files and JSON lines, read strictly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cat_jax.data.readers.text import open_text
from cat_jax.data.records import JsonNumber
from cat_jax.errors import InputError


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the objects of all lines that are not blank, each with its place."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, parse_object(line, where)


def read_json_list(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the objects of a file's list, or of the one list in its object, with their places.

    Raises:
        InputError: The file is not JSON, or holds no such list.
    """
    with open_text(path) as file:
        value = parse_json(file.read(), str(path), "write a list of objects")
    if isinstance(value, dict):
        lists = [name for name, part in value.items() if isinstance(part, list)]
        if len(lists) != 1:
            raise InputError(
                f"{path}: expected a list of objects, or an object with one list; it has "
                f"{', '.join(lists) or 'none'}; name a file of one object a line .jsonl"
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of objects, such as [{{...}}, {{...}}]")
    for number, item in enumerate(value, 1):
        yield (where := f"{path}, record {number}"), _checked(item, where)


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object in which numbers keep their spelling.

    Raises:
        InputError: The text is not JSON or no object, a field occurs twice, or a text holds half
            of a surrogate pair.
    """
    return _checked(parse_json(text, where, "write one object a line"), where)


def parse_json(text: str, where: str, mend: str) -> Any:
    """Parse JSON in which numbers keep their spelling.

    Args:
        text: The JSON.
        where: Its place, for messages.
        mend: What to write instead.

    Raises:
        InputError: The text is not JSON, or a field occurs twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InputError(f"{where}, field {repeated[0]!r}: occurs twice; remove one")
        return dict(pairs)

    try:
        return json.loads(
            text, parse_int=JsonNumber, parse_float=JsonNumber, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error}); {mend}") from error
    except RecursionError as error:
        raise InputError(
            f"{where}: lists or objects are nested too deeply; flatten them"
        ) from error


def _checked(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected one JSON object with 'input' and 'target'")
    for name, value in fields.items():
        if _has_half_pair(name) or _has_half_pair(value):
            raise InputError(
                f"{where}, field {name!r}: holds half of a surrogate pair, which is no character; "
                "write the character itself or both halves"
            )
    return fields


def _has_half_pair(value: Any) -> bool:
    """Tell whether a text within a JSON value holds a lone surrogate, as no UTF-8 text does."""
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(_has_half_pair(part) for part in (*value, *value.values()))
    return isinstance(value, list) and any(map(_has_half_pair, value))
