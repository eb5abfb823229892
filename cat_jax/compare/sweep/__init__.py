"""Sweeps: many runs as one call that can be stopped, continued and shared, and one table."""

from cat_jax.compare.sweep.cells import run_cell
from cat_jax.compare.sweep.folder import CellProgress, SweepFolder
from cat_jax.compare.sweep.sweep import Sweep, run_sweep
from cat_jax.compare.sweep.table import Row, Score, save_table, summarize_cells, table_cells

__all__ = [
    "CellProgress",
    "Row",
    "Score",
    "Sweep",
    "SweepFolder",
    "run_cell",
    "run_sweep",
    "save_table",
    "summarize_cells",
    "table_cells",
]
