"""Progress of a run in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(console: Console, title: str, steps: int) -> Iterator[Callable[[Any], None]]:
    """Show title, step, loss, speed and remaining time; yield a callback for log lines."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]} {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=steps, loss="-", speed="")

        def show(line: dict[str, Any]) -> None:
            if line["kind"] != "train":
                return
            speed = f"{line['tokens_per_second']:,.0f} tokens/s"
            if "mfu" in line:
                speed += f", {line['mfu']:.0%} MFU"
            bar.update(task, completed=line["step"], loss=f"{line['loss']:.3f}", speed=speed)

        yield show
