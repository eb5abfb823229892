"""Run a sweep: many runs as one command that can be stopped, continued and shared, and one table.

SWEEP is the name of a file in configs/sweeps, or the path of one. Cells that have a result are
skipped; what was interrupted continues from its checkpoints. The same command on another machine
that shares OUT takes other cells. Results, table.md and table.json are left in OUT/SWEEP.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

from cat_jax.config import Cell
from cat_jax.errors import Interrupted, SettingError
from cat_jax.ranges import Count, check_ranges
from experiments.command_line import exit_status, parse_arguments, say, start_console
from experiments.sweep_files import SweepFile, choose_cells, load_sweep, sweep_names

if TYPE_CHECKING:
    from rich.console import Console

    from cat_jax.compare.sweep import CellProgress, Sweep


@dataclass(frozen=True)
class Args:
    """Which sweep, and how.

    Attributes:
        sweep: Name or path of the sweep.
        out: Parent of the sweep's folder; a path or gs://BUCKET/FOLDER.
        processes: Worker processes; each gets a share of the cores.
        only: Cells to run: a name, or a pattern (cat.seed-*).
        dry_run: Show what is there and what is missing, and run nothing.
        table: Write and show the table of what is there, and run nothing.
        retry_failed: Run cells that failed before.
        keep_runs: Keep checkpoints, logs and exported models of finished cells.
    """

    sweep: tyro.conf.Positional[str]
    out: str = "runs/sweeps"
    processes: Count = 1
    only: str | None = None
    dry_run: bool = False
    table: bool = False
    retry_failed: bool = False
    keep_runs: bool = False

    def __post_init__(self):
        check_ranges(self, "")
        if not self.out.strip() or not self.out.isprintable():
            raise SettingError(
                "out", f"is {self.out!r}; give the folder in which to make OUT/SWEEP"
            )


def main() -> None:
    """Run the sweep that the command line describes; exit with status 1 where cells failed."""
    args = parse_arguments(
        Args,
        prog="python -m experiments.sweep",
        description=f"{(__doc__ or '').strip()}\n\nSweeps: {', '.join(sweep_names())}.",
    )
    sweep = load_sweep(args.sweep)
    chosen = choose_cells(sweep.cells, args.only)
    console = start_console()
    if args.dry_run:
        show_plan(console, chosen, args, sweep.name)
    elif args.table:
        show_table(console, sweep, args)
    else:
        found = run(console, sweep, chosen, args)
        show_table(console, sweep, args)
        report_failures(console, found, len(chosen))


def run(console: "Console", sweep: SweepFile, cells: Sequence[Cell], args: Args) -> "Sweep":
    """Run the chosen cells; tell of each that ends."""
    from cat_jax.compare.sweep import SweepFolder, run_sweep
    from experiments.progress import comparison_bars

    folder = folder_of(args, sweep.name)
    store = SweepFolder(folder)
    states = [store.progress(cell).state for cell in cells]
    todo = states.count("missing") + (states.count("failed") if args.retry_failed else 0)
    say(console, f"{len(cells)} cells, {states.count('done')} of them done, {todo} to run")
    options: dict[str, Any] = {
        "processes": args.processes,
        "retry_failed": args.retry_failed,
        "keep_runs": args.keep_runs,
        "finished": lambda found: say(console, describe(found, store)),
        "command": command_of(args),
    }
    with resumable():
        if args.processes > 1:
            return run_sweep(cells, folder, **options)
        with comparison_bars(console, todo) as show_run:
            return run_sweep(cells, folder, progress=show_run, **options)


@contextmanager
def resumable() -> Iterator[None]:
    """Say of what was interrupted that the same command continues it: there is no --resume."""
    try:
        yield
    except Interrupted as error:
        message = f"{error}; the same command continues"
        raise Interrupted(message, error.signum, resumable=False) from None


def describe(ended: "CellProgress", store: Any) -> str:
    """Return the scores of a cell that has ended, or why it failed, on a line."""
    if ended.state == "failed":
        return f"{ended.cell.name} failed: {ended.problem}"
    result = store.read_result(ended.cell)
    shares = {
        name: tests["right"] / tests["records"] for name, tests in result["test_sets"].items()
    }
    scores = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    trained = result["training"]
    time = "not trained" if trained is None else f"{trained['seconds']:.0f} s"
    return f"{ended.cell.name}: {scores}, {time}"


def show_plan(console: "Console", cells: Sequence[Cell], args: Args, name: str) -> None:
    """Show which cells are there, and of those that are missing how far they are."""
    from cat_jax.compare.sweep import SweepFolder
    from experiments.planning.cells import planned_costs
    from experiments.tables import text_table

    store = SweepFolder(folder_of(args, name))
    found = [store.progress(cell) for cell in cells]
    costs = [planned_costs(cell) for cell in cells]
    columns = ["cell", "method", "state"]
    if any(costs):
        columns += ["parameters", "memory, GB", "PFLOP"]
    rows = [
        [progress.cell.name, progress.cell.method, state_of(progress), *(cost or ["–"] * 3)]
        if any(costs)
        else [progress.cell.name, progress.cell.method, state_of(progress)]
        for progress, cost in zip(found, costs, strict=True)
    ]
    console.print(text_table(columns, rows))
    states = [progress.state for progress in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(console, f"{len(cells)} cells: {counts}")


def state_of(found: "CellProgress") -> str:
    """Return how far a cell is, in words."""
    if found.state == "missing" and found.saved is not None:
        return f"missing, step {found.saved} is saved"
    return found.state if found.problem is None else f"failed: {found.problem}"


def show_table(console: "Console", sweep: SweepFile, args: Args) -> None:
    """Write and show the table of all cells, run or not."""
    from cat_jax.compare.sweep import save_table, table_cells
    from cat_jax.files import save_errors
    from experiments.tables import text_table

    folder = folder_of(args, sweep.name)
    with save_errors(lambda: "the results are there"):
        rows = save_table(
            sweep.cells, folder, name=sweep.name, title=sweep.title, command=command_of(args)
        )
    console.print(text_table(*table_cells(rows)))
    say(console, f"table: {folder}/table.md")


def report_failures(console: "Console", found: "Sweep", count: int) -> None:
    """Name the cells without a result; exit with status 1 if any failed or a process was lost."""
    if found.missing:
        names = ", ".join(progress.cell.name for progress in found.missing)
        say(console, f"{len(found.missing)} of {count} cells have no result yet: {names}")
    problems = list(found.lost)
    if found.failed:
        names = ", ".join(progress.cell.name for progress in found.failed)
        problems.append(
            f"{len(found.failed)} of {count} cells failed: {names}; --retry-failed runs them again"
        )
    if problems:
        sys.exit(f"error: {'; '.join(problems)}")


def folder_of(args: Args, name: str) -> str:
    """Return the folder of a sweep."""
    return f"{args.out.rstrip('/')}/{name}"


def command_of(args: Args) -> str:
    """Return the command that runs the sweep."""
    out = "" if args.out == Args.out else f" --out {shlex.quote(args.out)}"
    return f"python -m experiments.sweep {shlex.quote(args.sweep)}{out}"


if __name__ == "__main__":
    sys.exit(exit_status(main))
