"""Checkpoints: state, data position and settings, written atomically and verified when read."""

import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from cat_jax.errors import InputError
from cat_jax.files import one_line, read_json, save_errors, write_text
from cat_jax.train.checksums import checksums
from cat_jax.train.evaluations import Evaluations
from cat_jax.train.state import TrainState

EVALUATIONS_FILE = "evaluations.json"


class DamagedCheckpoint(UserWarning):
    """A checkpoint was not used; the message says which one was in its place."""


class Checkpoints:
    """The checkpoints of one run: the ``keep`` newest, and that of the best evaluation.

    ``save`` returns when the state is copied to the host; it is written while training goes on,
    and counts from when ``wait`` (or the next ``save``) returns.

    Attributes:
        folder: One folder for each step, named by it.
        evaluations: Saved with the state; ``restore`` reads them.
    """

    def __init__(self, folder: epath.PathLike, config: dict[str, Any], *, keep: int = 2):
        """Open (or make) ``folder``; ``config`` (JSON values) is stored in every checkpoint.

        Warns:
            DamagedCheckpoint: A run was killed while it wrote a checkpoint, which is removed.
        """
        folder = epath.Path(folder)
        self.folder = folder if "://" in str(folder) else folder.absolute()
        self.evaluations = Evaluations()
        self._config = config
        partial = sorted(self.folder.glob("*.orbax-checkpoint-tmp*"))
        self._kept = _NewestAndBest(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept, cleanup_tmp_directories=True, create=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        for path in partial:
            _warn(f"{path} was not written to its end and is removed; {self.last_good()}")

    def latest_step(self) -> int | None:
        """Return the newest step that is completely written, None before the first."""
        steps = self._manager.all_steps()  # also the one that is being written, under another name
        return max((step for step in steps if (self.folder / str(step)).exists()), default=None)

    def last_good(self) -> str:
        """Name the checkpoint that a run would continue from, as a clause."""
        step = self.latest_step()
        if step is None:
            return "no checkpoint was saved yet"
        return f"the last good checkpoint is {self.folder / str(step)}"

    def saved(self, step: int) -> str:
        """Say that a step is saved, as a clause."""
        return f"step {step} is saved"

    def save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        """Write the state after ``state.step`` steps and the position in the data.

        A step that is there already is not written again; only its evaluations are, which may be
        newer (a signal saves before the evaluation).

        Raises:
            SaveFailed: This or the write before it failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            self._save_evaluations(step)
            return
        run = {
            "config": self._config,
            "position": batches.get_state(),
            "evaluations": asdict(self.evaluations),
            "checksums": checksums(state).tolist(),
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            run=ocp.args.JsonSave(run | {"seal": _seal(run)}),
        )
        with self.writing():
            self._kept.best = self.evaluations.best
            self._manager.save(step, args=items)

    def wait(self) -> None:
        """Return when everything is written.

        Raises:
            SaveFailed: A write failed.
        """
        with self.writing():
            self._manager.wait_until_finished()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn exceptions in the block into SaveFailed; orbax raises all kinds."""
        with save_errors(self.last_good, Exception):
            yield

    def restore(self, state: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """Return the newest intact state, sharded like ``state``; set ``batches`` to its position.

        Args:
            state: Arrays, which are deleted first, or shapes with shardings.
            batches: Batches of the same data; the number of processes may be another.

        Raises:
            InputError: No checkpoint is intact.

        Warns:
            DamagedCheckpoint: Newer checkpoints are damaged; they are renamed.
        """
        like = _released(state)
        damaged: dict[int, str] = {}
        for step in reversed(self._manager.all_steps()):
            found = self._read(step, like, damaged)
            if found is not None:
                self._set_aside(damaged, step)
                restored, run = found
                batches.set_state(run["position"])
                self.evaluations = self._later_evaluations(step, run["evaluations"])
                return restored
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise InputError(
            f"none of the checkpoints in {self.folder} can be restored ({reasons}); remove the "
            "folder to start again"
        )

    def restore_best(self, state: TrainState) -> TrainState:
        """Return the state of the best evaluation, sharded like ``state``, which is deleted.

        Raises:
            InputError: Its checkpoint is missing or damaged.
        """
        best = self.evaluations.best
        assert best is not None
        if int(state.step) == best:
            return state
        self.wait()
        damaged: dict[int, str] = {}
        found = self._read(best, _released(state), damaged)
        if found is None:
            raise InputError(
                f"the best checkpoint, {self.folder / str(best)}, cannot be restored "
                f"({damaged[best]}); set train.best to None to go on with the newest"
            )
        return found[0]

    def restore_finished(self, state: TrainState) -> TrainState:
        """Return the state that a finished run returned, sharded like ``state``; write nothing.

        Raises:
            InputError: Its checkpoint is missing or damaged.
        """
        last = self.latest_step()
        assert last is not None  # ``check_remains``
        damaged: dict[int, str] = {}
        found = self._read(last, _released(state), damaged)
        if found is None:
            raise InputError(
                f"{self.folder.parent} is finished, but its last checkpoint, "
                f"{self.folder / str(last)}, cannot be restored ({damaged[last]}); load the "
                "exported model instead, or remove that checkpoint and the exported model to "
                "train again from the checkpoint before"
            )
        restored, run = found
        self.evaluations = self._later_evaluations(last, run["evaluations"])
        return restored if self.evaluations.best is None else self.restore_best(restored)

    def close(self) -> None:
        """Wait for what is being written and release the folder.

        Raises:
            SaveFailed: A write failed.
        """
        with self.writing():
            self._manager.close()

    def _read(
        self, step: int, like: TrainState, damaged: dict[int, str]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Read a step if its checksums are as saved; else note in ``damaged`` why not."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), run=ocp.args.JsonRestore())
        found = None
        try:
            restored = self._manager.restore(step, args=items)
            state, run = restored["state"], restored["run"]
            if run.pop("seal") != _seal(run) or run["checksums"] != checksums(state).tolist():
                raise ValueError("it holds other values than were saved")
            found = state, run
        except Exception as error:  # damage has many faces: tensorstore, zstd, JSON, missing files
            damaged[step] = one_line(error)
        if not _all_processes(found is not None):
            damaged.setdefault(step, "another process cannot read it")
            return None
        return found

    def _save_evaluations(self, step: int) -> None:
        if jax.process_index() == 0:
            values = {"step": step, "evaluations": asdict(self.evaluations)}
            with self.writing():
                write_text(self.folder.parent / EVALUATIONS_FILE, json.dumps(values) + "\n")

    def _later_evaluations(self, step: int, saved: dict[str, Any]) -> Evaluations:
        """Return the evaluations of a step, which may have been made after it was saved."""
        file = self.folder.parent / EVALUATIONS_FILE
        if file.exists():
            later = read_json(file, dict, "remove it to go on without the evaluation that it holds")
            if later["step"] == step and later["evaluations"]["last"] >= saved["last"]:
                return Evaluations(**later["evaluations"])
        return Evaluations(**saved)

    def _set_aside(self, damaged: dict[int, str], good: int) -> None:
        for step, reason in damaged.items():
            path = self.folder / str(step)
            numbered = (epath.Path(f"{path}.damaged-{n}") for n in count(1))
            new = next(name for name in numbered if not name.exists())
            if jax.process_index() == 0:
                path.rename(new)
            _warn(
                f"{path} is damaged ({reason}) and now named {new.name}; continuing from "
                f"{self.folder / str(good)}"
            )
        if damaged:
            _all_processes(True)  # nobody reads the folder before it is in order
            self._manager.reload()


@dataclass
class _NewestAndBest:
    """Which checkpoints orbax keeps."""

    keep: int
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in steps[-self.keep :] or step == self.best for step in steps]


def _seal(run: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(run, sort_keys=True).encode())


def _released(state: TrainState) -> TrainState:
    """Return shapes and shardings of a state whose memory is freed: two may not fit."""
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array):
            leaf.delete()
    return like


def _all_processes(agree: bool) -> bool:
    if jax.process_count() == 1:
        return agree
    return bool(multihost_utils.process_allgather(np.array(agree)).all())


def _warn(message: str) -> None:
    if jax.process_index() == 0:
        warnings.warn(message, DamagedCheckpoint, stacklevel=3)
