"""Progress of a run in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

ShowRun = Callable[[str, int], AbstractContextManager[Callable[[dict[str, Any]], None]]]
EPOCHS = "epoch {task.completed:.2f}/{task.total:g}"


@contextmanager
def progress_bar(
    console: Console, title: str, total: float, unit: str = "step"
) -> Iterator[Callable[[Any], None]]:
    """Show title, step or epoch, loss, causal mass, speed and remaining time; yield a callback.

    The callback takes log lines. The causal mass is that of guided runs, "-" where a batch has no
    annotated query.
    """
    completed = MofNCompleteColumn() if unit == "step" else TextColumn(EPOCHS)
    with Progress(*_columns(completed), console=console) as bar:
        task = bar.add_task(title, total=total, says="loss -")

        def show(line: dict[str, Any]) -> None:
            if line["kind"] == "train":
                bar.update(task, completed=line[unit], says=_says(line))

        yield show


def _columns(completed: ProgressColumn) -> tuple[ProgressColumn, ...]:
    # A title may hold what looks like markup.
    title, says = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[says]}")
    return title, BarColumn(), completed, says, TimeRemainingColumn()


def _says(line: dict[str, Any]) -> str:
    """Return loss, causal mass and speed of a line of the log."""
    speed = f"{line['tokens_per_second']:,.0f} tokens/s"
    if "mfu" in line:
        speed += f", {line['mfu']:.0%} MFU"
    share = f"{line['causal_mass']:.1%}" if "causal_mass" in line else "-"
    mass = f" causal mass {share}" if "gamma" in line else ""
    return f"loss {line['loss']:.3f}{mass} {speed}"


@contextmanager
def comparison_bars(console: Console, runs: int) -> Iterator[ShowRun]:
    """Show how far all runs are, and the one that trains; yield what ``compare`` calls for each.

    A finished run leaves a line. Without a terminal there are these lines alone.
    """
    columns, finished = _columns(MofNCompleteColumn()), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        whole = bars.add_task("all runs", total=runs, says="")

        @contextmanager
        def show_run(title: str, steps: float) -> Iterator[Callable[[dict[str, Any]], None]]:
            nonlocal finished
            task = bars.add_task(title, total=steps, says="")
            says = "finished before" if steps else "not trained"

            def show(line: dict[str, Any]) -> None:
                nonlocal says
                if line["kind"] != "train":
                    return
                says = _says(line)
                bars.update(task, completed=line["step"], says=says)
                bars.update(whole, completed=finished + line["step"] / steps)

            try:
                yield show
                finished += 1
                bars.update(whole, completed=finished)
                console.print(f"{title}: {says}", markup=False)
            finally:
                bars.remove_task(task)

        yield show_run


@contextmanager
def record_bar(total: int, says: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Show on stderr, if it is a terminal, how many records are done; yield what counts one.

    Args:
        total: Number of records.
        says: What to say beside, such as what was spent.
    """
    console = Console(stderr=True, highlight=False)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}")
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=total, said="")
        yield lambda: bar.update(task, advance=1, said=says())
