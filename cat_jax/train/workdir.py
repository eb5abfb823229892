"""The workdir of a run: a folder or ``gs://`` path that belongs to one run and its settings."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from etils import epath

from cat_jax.config import Guidance, Optimizer, Regularizer, Training
from cat_jax.distributed import check_shared, is_primary, sync_errors
from cat_jax.errors import InputError
from cat_jax.files import one_line, read_json, save_errors, unwritable, write_text
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task
from cat_jax.train.extension import check_extendable, is_longer
from cat_jax.train.lock import LOCK_FILE, hold_workdir
from cat_jax.train.provenance import note_environment, noted_environments

CONFIG_FILE = "config.json"
NEUTRAL = ("mesh", "keep", "profile", "unmatched", "export_dtype", "wandb_project")
"""Fields of ``Training`` that do not change the numbers: other devices may resume a run."""

RENAMED = ("name",)
"""Settings that do not change the numbers: the folder of a run may be renamed or copied."""


def json_settings(**sections: Any) -> dict[str, Any]:
    """Return settings as JSON values.

    Dataclasses become objects, a task's with its name as ``task``; functions are named.
    """
    return json.loads(json.dumps({name: _plain(value) for name, value in sections.items()}))


def start_settings(start: Any) -> Any:
    """Return where a model is from; a model in memory is described by its configuration."""
    return {"in_memory": start.model.config} if isinstance(start, LanguageModel) else start


def training_settings(train: Training) -> dict[str, Any]:
    """Return the fields of the loop that decide the numbers."""
    fields = dataclasses.asdict(train)
    unused = NEUTRAL if train.epochs is None else (*NEUTRAL, "steps")
    return {name: value for name, value in fields.items() if name not in unused}


def run_settings(
    start: Any,
    *,
    guidance: Guidance | None,
    optimizer: Optimizer,
    train: Training,
    seed: int,
    regularizer: Regularizer | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the settings of one run as JSON values, after those of ``provenance``."""
    return json_settings(
        **(provenance or {}),
        model=start_settings(start),
        guidance=guidance,
        regularizer=regularizer,
        optimizer=optimizer,
        train=training_settings(train),
        seed=seed,
    )


def check_workdir(workdir: epath.Path, settings: Mapping[str, Any], *, resume: bool) -> bool:
    """Tell whether the workdir holds a run to continue; write nothing.

    Args:
        workdir: Folder of the run.
        settings: Settings that are known so far; those the workdir has besides are not compared.
        resume: Whether a run that is there may be continued.

    Raises:
        InputError: The workdir holds another run, something else, or a run made with other
            settings; more steps are none where those so far do not depend on it.
    """
    saved = workdir / CONFIG_FILE
    if not is_occupied(workdir):
        check_writable(workdir)
        return False
    if not saved.is_file():
        raise InputError(
            f"{workdir} is not empty and holds no run ({CONFIG_FILE} is missing); choose another"
        )
    if not resume:
        raise InputError(
            f"{workdir} already holds a run; continue it with --resume, choose another --name, "
            "or remove the folder"
        )
    old, new = _saved_settings(workdir), _fixed(settings)
    noted_environments(workdir)
    if is_longer(old, new):
        check_extendable(str(workdir), old, new)
        return True
    changed = differences({name: value for name, value in old.items() if name in new}, new)
    if changed:
        raise InputError(
            f"{workdir} was made with other settings ({'; '.join(changed)}); "
            "give the same ones to resume, or choose another --name"
        )
    return True


def is_extended(workdir: epath.Path, settings: Mapping[str, Any]) -> bool:
    """Tell whether settings ask for more steps than those of the run in the workdir.

    Raises:
        InputError: The settings of the run cannot be read.
    """
    return is_longer(_saved_settings(workdir), _fixed(settings))


def _saved_settings(workdir: epath.Path) -> dict[str, Any]:
    return read_json(workdir / CONFIG_FILE, dict, "restore it to resume, or choose another --name")


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in RENAMED}


def check_writable(workdir: epath.Path) -> None:
    """Raise InputError if the workdir cannot be written to, or made; write nothing."""
    reason = unwritable(workdir)
    if reason is not None:
        raise InputError(f"{workdir} cannot be written to, as {reason}; choose another folder")


def is_occupied(workdir: epath.Path) -> bool:
    """Tell whether a folder holds more than what a process that was killed may leave.

    Raises:
        InputError: It cannot be looked at.
    """
    try:
        return workdir.is_dir() and any(
            p.name != LOCK_FILE and not p.name.startswith(".") for p in workdir.iterdir()
        )
    except (OSError, ValueError) as error:  # also a name that is too long, or holds NUL
        reason = one_line(error)
        raise InputError(f"{workdir} cannot be read ({reason}); choose another folder") from None


@contextmanager
def begin_workdir(
    workdir: epath.Path,
    settings: Mapping[str, Any],
    check: Callable[[], object],
    kept: Callable[[], str],
) -> Iterator[None]:
    """Hold the workdir until the block ends, and note settings and environment in it.

    Args:
        workdir: Folder of the run; made if missing.
        settings: What to note.
        check: Looks at the workdir once more, now that no other process can change it.
        kept: Says what was saved before, as a clause.

    Raises:
        InputError: Another process holds the workdir, or ``check`` refuses it.
        SaveFailed: It cannot be written.
    """
    with ExitStack() as stack:
        with save_errors(kept):
            with sync_errors():
                if is_primary():
                    stack.enter_context(hold_workdir(workdir))
                    check()
            init_workdir(workdir, settings)
        yield


def init_workdir(workdir: epath.Path, settings: Mapping[str, Any]) -> None:
    """Make the workdir, and note settings and environment in it.

    Raises:
        InputError: Not all processes see the same folder.
    """
    if is_primary():
        file, text = workdir / CONFIG_FILE, json.dumps(settings, indent=2) + "\n"
        if not file.exists() or file.read_text() != text:
            write_text(file, text)
        note_environment(workdir)
    check_shared(workdir / CONFIG_FILE)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        task = {"task": value.name} if isinstance(value, Task) else {}
        value = task | {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return where two values of JSON differ: ``train.steps: 100 there, 200 now``."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        nested = (differences(old.get(n), new.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return [difference for differences in nested for difference in differences]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} now"]
