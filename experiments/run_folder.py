"""The output folder of an experiment: ``OUT/NAME``, one experiment each."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cat_jax.config import Experiment, Finetune
from cat_jax.errors import InputError

CONFIG_FILE = "config.json"


def settings(config: Experiment | Finetune) -> dict[str, Any]:
    """The fields that decide the numbers, as JSON values; other devices may resume a run."""
    fields = dataclasses.asdict(config)
    del fields["resume"], fields["out"], fields["distributed"]
    for name in ("mesh", "keep", "profile", "wandb_project"):
        del fields["train"][name]
    return json.loads(json.dumps(fields))


def check_folder(config: Experiment | Finetune) -> Path:
    """The folder to write to; writes nothing.

    Raises:
        InputError: the folder holds another run, or there is nothing to resume, or what is there
            was made with other settings, or the parent is no folder.
    """
    if "://" in config.out:
        raise InputError(
            f"--out is {config.out}, but runs are written to folders: mount the bucket (gcsfuse) "
            "and give its path"
        )
    folder = Path(config.out) / config.name
    saved = folder / CONFIG_FILE
    if not config.resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} already holds a run; continue it with --resume, choose another --name, "
                "or remove the folder"
            )
        return folder
    if not saved.is_file():
        raise InputError(f"nothing to resume: {saved} does not exist; leave out --resume")
    try:
        old = json.loads(saved.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{saved} is not valid JSON ({error}); remove {folder}") from error
    changed = _differences(old, settings(config))
    if changed:
        raise InputError(
            f"{folder} was made with other settings ({'; '.join(changed)}); "
            "give the same ones to resume, or choose another --name"
        )
    return folder


def create_folder(folder: Path, config: Experiment | Finetune) -> None:
    """Makes the folder and notes the settings in it."""
    write_text(folder / CONFIG_FILE, json.dumps(settings(config), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the file whole or not at all, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        nested = (_differences(old.get(n), new.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return [difference for differences in nested for difference in differences]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} now"]
