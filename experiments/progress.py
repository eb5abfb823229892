"""Progress of a run in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EPOCHS = "epoch {task.completed:.2f}/{task.total:g}"


@contextmanager
def progress_bar(
    console: Console, title: str, total: float, unit: str = "step"
) -> Iterator[Callable[[Any], None]]:
    """Show title, step or epoch, loss, causal mass, speed and remaining time; yield a callback.

    The callback takes log lines. The causal mass is that of guided runs, "-" where a batch has no
    annotated query.
    """
    columns = (
        TextColumn("{task.description}", markup=False),  # a name may hold what looks like markup
        BarColumn(),
        MofNCompleteColumn() if unit == "step" else TextColumn(EPOCHS),
        TextColumn("loss {task.fields[loss]}{task.fields[mass]} {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, loss="-", mass="", speed="")

        def show(line: dict[str, Any]) -> None:
            if line["kind"] != "train":
                return
            speed = f"{line['tokens_per_second']:,.0f} tokens/s"
            if "mfu" in line:
                speed += f", {line['mfu']:.0%} MFU"
            share = f"{line['causal_mass']:.1%}" if "causal_mass" in line else "-"
            mass = f" causal mass {share}" if "gamma" in line else ""
            loss = f"{line['loss']:.3f}"
            bar.update(task, completed=line[unit], loss=loss, mass=mass, speed=speed)

        yield show


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
