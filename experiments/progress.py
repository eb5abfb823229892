"""What a terminal shows while a run goes on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, Mapping[str, float]], None]
"""Called with a step and its metrics."""


@contextmanager
def progress_bar(console: Console, title: str, steps: int) -> Iterator[Report]:
    """One line: what runs, how far it is, its loss and speed, and the time it still needs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]} {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=steps, loss="-", speed="")

        def report(step: int, values: Mapping[str, float]) -> None:
            speed = f"{values['tokens_per_second']:,.0f} tokens/s"
            if "mfu" in values:
                speed += f", {values['mfu']:.0%} MFU"
            bar.update(task, completed=step, loss=f"{values['loss']:.3f}", speed=speed)

        yield report
