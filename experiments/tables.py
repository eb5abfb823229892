"""Tables for a terminal."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from cat_jax.compare import Comparison
from cat_jax.compare.report import cells


def comparison_table(comparison: Comparison) -> Table:
    """Return the scores of a comparison, a row per method and per reference rule."""
    return text_table(*cells(comparison))


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain texts, the first column of which names the row."""
    table = Table()
    for number, title in enumerate(columns):
        # As Text, because a file name may hold what rich takes for markup.
        table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
