"""Metrics on their way out: a history, JSON lines, TensorBoard, Weights & Biases, callbacks."""

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import jax
from etils import epath

from cat_jax.files import write_lines

METRICS_FILE = "metrics.jsonl"

Line = dict[str, Any]
"""``{"kind": "train" | "eval", "step": int, NAME: float, ...}``."""
Callback = Callable[[Line], None]
"""Called with every new line of the history, in every process."""


class MetricsLog:
    """The history of a run: lines of metrics, kept in memory and, with a folder, on disk.

    On disk they are ``metrics.jsonl`` and TensorBoard events, written by the primary process; the
    values are the same in all.

    Attributes:
        history: All lines so far, of a resumed run too.
    """

    def __init__(
        self,
        folder: epath.PathLike | None,
        resume_step: int | None = None,
        *,
        tracker: Any = None,
        callbacks: Iterable[Callback] = (),
        started: float | None = None,
    ):
        """Open the log.

        Args:
            folder: Where to write; None keeps the history in memory only.
            resume_step: Step that the run continues from: later lines, left by a crash, are
                dropped. None starts anew.
            tracker: Receives the metrics too (``open_tracker``).
            callbacks: Called with every new line.
            started: ``time.perf_counter()`` when the run began in this process; lines then hold
                ``elapsed_seconds``, which a resumed run continues.
        """
        self.history: list[Line] = []
        self._callbacks = tuple(callbacks)
        self._unseen: list[Line] = []
        self._tracker = tracker
        self._writer: _Writer | None = None
        if folder is not None:
            path = epath.Path(folder) / METRICS_FILE
            if resume_step is not None:
                self.history = [x for x in read_metrics(path) if x["step"] <= resume_step]
            if jax.process_index() == 0:
                first = 0 if resume_step is None else resume_step + 1
                self._writer = _Writer(path, self.history, first)
        before = max((line.get("elapsed_seconds", 0.0) for line in self.history), default=0.0)
        self._zero = None if started is None else started - before

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append the values of one step, visible to readers at once.

        NaN values (the causal mass of records without annotation) are left out. ``notify`` then
        calls the callbacks, whose errors are not those of writing.

        Raises:
            OSError: The disk is full.
        """
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        if not values:
            return
        line = {"kind": kind, "step": step, **values}
        if self._zero is not None:
            line["elapsed_seconds"] = time.perf_counter() - self._zero
        self.history.append(line)
        if self._writer is not None:
            self._writer.append(line)
        if self._tracker is not None:
            self._tracker.log({f"{kind}/{name}": x for name, x in values.items()}, step=step)
        self._unseen.append(line)

    def notify(self) -> None:
        """Call the callbacks with the lines since the last call."""
        unseen, self._unseen = self._unseen, []
        for line in unseen:
            for callback in self._callbacks:
                callback(dict(line))

    def flush(self) -> None:
        """Bring what was written to where a resumed run finds it."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flush and close all."""
        if self._writer is not None:
            self._writer.close()
        if self._tracker is not None:
            self._tracker.finish()


class _Writer:
    """``metrics.jsonl`` and TensorBoard events of one process."""

    def __init__(self, path: epath.Path, history: list[Line], first_step: int):
        # Imported here because it imports torch where that is installed, which takes seconds.
        from tensorboardX import SummaryWriter

        self._path, self._history = path, history
        self._rewrite()
        # Object stores cannot append: there the whole file is written at every flush.
        self._file = None if "://" in str(path) else open(path, "ab", buffering=0)  # noqa: SIM115
        self._events = SummaryWriter(str(path.parent / "tensorboard"), purge_step=first_step)

    def append(self, line: Line) -> None:
        if self._file is not None:
            encoded = json.dumps(line).encode() + b"\n"
            if self._file.write(encoded) < len(encoded):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        for name, value in line.items():
            if name not in ("kind", "step", "elapsed_seconds"):
                self._events.add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def flush(self) -> None:
        if self._file is None:
            self._rewrite()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
        with suppress(OSError):  # the disk is full, as the run was told; the lines have it all
            self._events.close()

    def _rewrite(self) -> None:
        write_lines(self._path, (json.dumps(line) for line in self._history))


def read_metrics(path: epath.PathLike) -> Iterator[Line]:
    """Read the lines of a ``metrics.jsonl``; a last line that a crash cut short is left out."""
    path = epath.Path(path)
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
