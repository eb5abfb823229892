"""A section of the page of results: table, figures, and how it was made."""

from collections.abc import Mapping

from cat_jax.compare.sweep import Row, table_cells
from cat_jax.markdown import markdown_table
from experiments.results_data import Results, wilson
from experiments.results_worlds import worlds_summary
from experiments.sweep_files import sweep_names, sweep_title

MANY = 30
"""Rows up to which a table is open."""


def section(results: Results, figures: Mapping[str, str]) -> str:
    """Return the Markdown of one file of results.

    Args:
        results: The results.
        figures: Captions of its figures, by the file in ``figures``.
    """
    columns, cells = table_cells(results.rows)
    by_seed = [_by_seed(row) for row in results.rows]
    if any(by_seed):
        columns = [*columns, "OOD % of each seed"]
        cells = [[*row, seeds] for row, seeds in zip(cells, by_seed, strict=True)]
    intervals = results.intervals
    if any(by_seed):
        intervals += " Of each seed Wilson's over its test records."
    failed = [
        f"- {row.name}, seed {seed}, failed: {why}"
        for row in results.rows
        for seed, why in row.failed.items()
    ]
    parts = [
        f"## {results.name}",
        results.title.rstrip(".") + ".",
        _fold(markdown_table(columns, cells), len(cells)),
        intervals,
        worlds_summary(results.rows),
        *(f"![{caption}](figures/{file})" for file, caption in figures.items()),
        "\n".join([*(f"- {line}" for line in results.made), *failed]),
    ]
    return "\n\n".join(filter(None, parts))


def _fold(table: str, rows: int) -> str:
    """Return a table, closed until a reader opens it where it has many rows."""
    if rows <= MANY:
        return table
    return f"<details>\n<summary>The table of {rows} rows</summary>\n\n{table}\n\n</details>"


def _by_seed(row: Row) -> str:
    """Return the OOD accuracy of each of several seeds, with its interval over records."""
    score = row.scores.get("ood")
    if score is None or score.records is None or len(score.values) < 2:
        return ""
    shown = []
    for value in score.values:
        if value is not None:
            low, high = wilson(value, score.records)
            shown.append(f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return "; ".join(shown)


def not_run(found: set[str]) -> list[str]:
    """Return a section of the sweeps without results, if there are any."""
    lines = [
        f"- `python -m experiments.sweep {name}`: {sweep_title(name)}"
        for name in sweep_names()
        if name not in found
    ]
    return ["## Sweeps that were not run", "\n".join(lines)] if lines else []
