"""Text and annotation of tables whose causal columns are known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError


def table_records(
    rows: Iterable[Mapping[str, Any]],
    *,
    target: str,
    causes: Sequence[str],
    columns: Sequence[str] | None = None,
    before: str = "",
    item: str = "{name}: {value}",
    separator: str = ", ",
    after: str = ". Answer: ",
) -> Iterator[Record]:
    """Yield a record for each row: its cells as text, and the answer's dependence on some of them.

    The answer depends on the values of the causal columns, each at its character offset, so equal
    values of other columns are not confused with them.

    >>> rows = [{"Smoking": 8, "Yellow fingers": 12, "risk": "high"}]
    >>> record = next(table_records(rows, target="risk", causes=["Smoking"]))
    >>> record.input, record.important[0].causes[0].start
    ('Smoking: 8, Yellow fingers: 12. Answer: ', 9)

    Args:
        rows: Cells by the name of their column, such as ``csv.DictReader`` gives.
        target: Column of the answer.
        causes: Columns that the answer depends on.
        columns: Columns to write, in order; None writes all but the target as the row has them.
        before: Text before the cells.
        item: Text of a cell, with the fields ``name`` and ``value``.
        separator: Text between cells.
        after: Text after the cells.

    Raises:
        InputError: A column is missing or a cell is empty, no column is causal, or ``item`` is of
            another form.
    """
    if not causes:
        raise InputError("causes names no column; name those that the answer depends on")
    if target in causes:
        raise InputError(f"the column {target!r} is the answer and cannot be its own cause")
    if item.count("{value}") != 1:
        raise InputError(
            f"item must have {{value}} once, as in '{{name}}: {{value}}', not {item!r}"
        )
    for number, row in enumerate(rows, 1):
        chosen = [name for name in row if name != target] if columns is None else columns
        missing = [name for name in (*chosen, *causes, target) if not _cell(row, name).strip()]
        missing += [name for name in causes if name not in chosen]
        if missing:
            raise InputError(f"row {number}: there is no value in the column {missing[0]!r}")
        yield _record(row, target, causes, chosen, (before, item, separator, after))


def _record(
    row: Mapping[str, Any],
    target: str,
    causes: Sequence[str],
    columns: Sequence[str],
    wording: tuple[str, str, str, str],
) -> Record:
    before, item, separator, after = wording
    lead, _, tail = item.partition("{value}")
    text, places = before, {}
    for name in columns:
        text += (separator if places else "") + lead.replace("{name}", name)
        places[name] = len(text)
        text += _cell(row, name) + tail.replace("{name}", name)
    prompt, answer = text + after, _cell(row, target)
    spans = tuple(Span(_cell(row, name), places[name]) for name in causes)
    return Record(prompt, answer, (Annotation(Span(answer, len(prompt)), spans),))


def _cell(row: Mapping[str, Any], name: str) -> str:
    return "" if row.get(name) is None else str(row[name])
