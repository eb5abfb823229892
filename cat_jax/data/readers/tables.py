"""Rows of tables: CSV, TSV and Parquet."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cat_jax.data.readers.text import open_text
from cat_jax.errors import InputError
from cat_jax.files import one_line

SEPARATORS = {"csv": ",", "tsv": "\t"}


class Cells(dict[str, str]):
    """Fields of a table whose cells are text; an empty cell is a missing field.

    What is a list or an object elsewhere (``important``, ``messages``) is written as JSON.
    """


def read_separated(path: Path, kind: str) -> Iterator[tuple[str, Cells]]:
    """Yield the rows of a CSV or TSV file, whose first line names the columns, with their places.

    Args:
        path: The file.
        kind: "csv" or "tsv".

    Raises:
        InputError: No or bad names of columns, a row of another length, or broken quotes.
    """
    with open_text(path) as file:
        rows = csv.reader(file, delimiter=SEPARATORS[kind], strict=True)
        names: list[str] | None = None
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {rows.line_num}: not valid {kind.upper()} ({error}); mend the "
                    "quotes, or use JSON lines"
                ) from error
            if row is None:
                return
            where = f"{path}, line {rows.line_num}"
            if names is None:
                names = _names(row, where)
            elif row:
                yield where, _cells(names, row, where)


def _names(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if "" in names or not names:
        raise InputError(f"{where}: a column has no name; name every column in the first line")
    if repeated:
        raise InputError(f"{where}: two columns are named {repeated[0]!r}; rename one")
    return names


def _cells(names: list[str], row: list[str], where: str) -> Cells:
    if len(row) != len(names):
        raise InputError(
            f"{where}: {len(row)} cells, but the first line names {len(names)} columns; quote "
            "cells that hold separators or line breaks"
        )
    return Cells({name: cell for name, cell in zip(names, row, strict=True) if cell})


def read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a Parquet file with their places.

    Raises:
        InputError: It cannot be read, or is no Parquet file.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except pyarrow.ArrowException as error:
        raise InputError(
            f"{path} is no Parquet file, or is damaged after row {number} ({one_line(error)}); "
            "make it anew"
        ) from error
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(f"cannot read {path}: {reason}; check the path") from error
