"""Tables for a terminal."""

from rich.table import Table
from rich.text import Text

from cat_jax.compare import Comparison
from cat_jax.compare.report import cells


def comparison_table(comparison: Comparison) -> Table:
    """Return the scores of a comparison, a row per method and per reference rule."""
    columns, rows = cells(comparison)
    table = Table()
    for title in columns:
        # As Text, because a file name may hold what rich takes for markup.
        table.add_column(Text(title), justify="right" if title else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
