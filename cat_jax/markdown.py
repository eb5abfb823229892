"""Tables and text in Markdown."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Align = Literal["left", "right", "center"]
_RULES = {"left": "---", "right": "---:", "center": ":---:"}


def escape(text: str) -> str:
    """Return Markdown that renders as ``text`` on one line, in a table cell too."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def markdown_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: Align | Sequence[Align] = "left",
) -> str:
    """Return a GitHub-flavoured Markdown table without a final newline.

    Args:
        columns: Column titles.
        rows: Cells of each row, as many as columns. Titles and cells are plain text: both are
            passed through ``escape``.
        align: Alignment of all columns, or of each.

    Raises:
        ValueError: A row or ``align`` does not have one entry per column.
    """
    alignment = [align] * len(columns) if isinstance(align, str) else align
    if len(alignment) != len(columns):
        raise ValueError(f"{len(alignment)} alignments for {len(columns)} columns")
    lines = [_line(map(escape, columns)), _line(_RULES[side] for side in alignment)]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns: {row}")
        lines.append(_line(map(escape, row)))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
