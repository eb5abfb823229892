"""Columns of a data set under other names than those of a format."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cat_jax.errors import InputError, name_hint

LISTED = 300  # characters of the names that a sentence lists


class Columns:
    """Names of columns for the fields of a format, and which of them were found.

    Args:
        columns: Name of the column of each field.
        known: Names of fields that there are.

    Raises:
        InputError: A field that there is not.
    """

    def __init__(self, columns: Mapping[str, str], known: Collection[str]):
        self._columns, self._missing, self._seen = dict(columns), set(columns), dict[Any, None]()
        for field in columns:
            if field not in known:
                hint = name_hint(field, sorted(known))
                raise InputError(f"columns: there is no field {field!r}; {hint}")

    @property
    def fields(self) -> frozenset[str]:
        """Fields that columns are named for."""
        return frozenset(self._columns)

    def rename(self, fields: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the fields of an item by the names of a format."""
        self._seen |= dict.fromkeys(fields)
        renamed = {field: fields[name] for field, name in self._columns.items() if name in fields}
        self._missing -= renamed.keys()
        taken = {*self._columns, *self._columns.values()}
        return renamed | {name: value for name, value in fields.items() if name not in taken}

    def check_found(self, where: str) -> None:
        """Check that some item had each column.

        Raises:
            InputError: None of the items up to ``where`` had one.
        """
        for field in sorted(self._missing):
            raise InputError(
                f"{where}: there is no column {self._columns[field]!r} for the field {field!r} up "
                f"to here; the columns are {shown_names(self._seen) or 'none'}"
            )


def shown_names(names: Iterable[Any]) -> str:
    """Return names as a list for a sentence, cut where it is long."""
    listed = ", ".join(map(str, names))
    return f"{listed[:LISTED]}..." if len(listed) > LISTED else listed
