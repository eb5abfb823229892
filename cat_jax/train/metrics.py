"""Numbers on their way out: a JSON line, TensorBoard, and on request Weights & Biases."""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends to ``metrics.jsonl`` and TensorBoard events in a run's folder.

    Lines are ``{"kind": "train" | "eval", "step": ..., NAME: float, ...}``. All processes have the
    same values; the first writes them.
    """

    def __init__(self, folder: Path, resume_step: int, tracker: Any = None):
        """Opens the log; lines after ``resume_step``, which a crash left behind, are dropped.

        A ``tracker`` (from ``open_tracker``) gets the values too.
        """
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("ab", buffering=0)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)
        self._tracker = tracker

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Appends the values of one step, visible to readers at once.

        A value that is NaN (the causal mass of rows without annotation) is left out.

        Raises:
            OSError: the disk is full.
        """
        if not self._writes:
            return
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        if not values:
            return
        line = json.dumps({"kind": kind, "step": step, **values}).encode() + b"\n"
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)
        if self._tracker is not None:
            named = {f"{kind}/{name}": value for name, value in values.items()}
            self._tracker.log(named, step=step)

    def close(self) -> None:
        """Flushes and closes all."""
        if not self._writes:
            return
        self._file.close()
        with suppress(OSError):  # the disk is full, as the run was told; the lines have it all
            self._events.close()
        if self._tracker is not None:
            self._tracker.finish()


def read_metrics(path: Path) -> Iterator[dict]:
    """The lines of a ``metrics.jsonl``; a last line that a crash cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
