"""The workdir of a run: a folder or ``gs://`` path that belongs to one run and its settings."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from cat_jax.config import Training
from cat_jax.distributed import check_shared, is_primary
from cat_jax.errors import InputError
from cat_jax.files import write_text
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task
from cat_jax.train.provenance import note_environment

CONFIG_FILE = "config.json"
NEUTRAL = ("mesh", "keep", "profile", "wandb_project")
"""Fields of ``Training`` that do not change the numbers: other devices may resume a run."""


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
    return {name: value for name, value in fields.items() if name not in NEUTRAL}


def check_workdir(workdir: epath.Path, settings: Mapping[str, Any], *, resume: bool) -> bool:
    """Tell whether the workdir holds a run to continue; write nothing.

    Args:
        workdir: Folder of the run.
        settings: Settings that are known so far; those the workdir has besides are not compared.
        resume: Whether a run that is there may be continued.

    Raises:
        InputError: The workdir holds another run, something else, or a run made with other
            settings.
    """
    saved = workdir / CONFIG_FILE
    occupied = workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir()))
    if not occupied:
        return False
    if not resume:
        raise InputError(
            f"{workdir} already holds a run; continue it with --resume, choose another --name, "
            "or remove the folder"
        )
    if not saved.is_file():
        raise InputError(
            f"{workdir} is not empty and holds no run ({CONFIG_FILE} is missing); choose another"
        )
    try:
        old = json.loads(saved.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{saved} is not valid JSON ({error}); remove {workdir}") from error
    known = {name: value for name, value in old.items() if name in settings}
    changed = _differences(known, dict(settings))
    if changed:
        raise InputError(
            f"{workdir} was made with other settings ({'; '.join(changed)}); "
            "give the same ones to resume, or choose another --name"
        )
    return True


def init_workdir(workdir: epath.Path, settings: Mapping[str, Any]) -> None:
    """Make the workdir, and note settings and environment in it.

    Raises:
        InputError: Not all processes see the same folder.
    """
    if is_primary():
        write_text(workdir / CONFIG_FILE, json.dumps(settings, indent=2) + "\n")
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


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        nested = (_differences(old.get(n), new.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return [difference for differences in nested for difference in differences]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} now"]
