"""What an earlier process left of a run: whether it can go on, and whether it is finished."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from cat_jax.config import Training
from cat_jax.errors import InputError
from cat_jax.files import read_json
from cat_jax.models.huggingface.peft import WEIGHTS_FILE
from cat_jax.models.huggingface.safetensors import INDEX_FILE, SINGLE_FILE
from cat_jax.train.export import ADAPTER, MODEL
from cat_jax.train.fingerprint import Fingerprint, check_data
from cat_jax.train.metrics import METRICS_FILE
from cat_jax.train.workdir import check_workdir, check_writable, is_extended

CHECKPOINTS = "checkpoints"
OR_ANEW = "or choose another --name to train anew"


def check_run(
    workdir: epath.Path,
    settings: Mapping[str, Any],
    train: Training,
    data: Mapping[str, Fingerprint] | None = None,
    *,
    resume: bool,
) -> bool:
    """Check whether a run may begin or go on in a workdir; return whether it is finished.

    Args:
        workdir: Folder of the run.
        settings: Settings that are known so far.
        train: Training loop.
        data: Fingerprints of the data by its use, if they are known.
        resume: Whether a run that is there may be continued.

    Raises:
        InputError: It may not: another run, other data, or parts are missing.
    """
    if not check_workdir(workdir, settings, resume=resume):
        return False
    finished = check_remains(workdir, train) and not is_extended(workdir, settings)
    if data is not None:
        check_data(workdir, data)
    if not finished:
        check_writable(workdir)
    return finished


def last_good(workdir: epath.Path | None) -> str:
    """Name the checkpoint that a run would continue from, as a clause."""
    steps = [] if workdir is None else saved_steps(workdir)
    if workdir is None or not steps:
        return "no checkpoint was saved yet"
    return f"the last good checkpoint is {workdir / CHECKPOINTS / str(steps[-1])}"


def set_aside_export(workdir: epath.Path) -> None:
    """Rename the exported model of a run that is to be extended: ``model`` to ``model-STEP``.

    Without it the run is none that has finished, wherever it is stopped.
    """
    for name in (MODEL, ADAPTER):
        if (workdir / name).exists():
            (workdir / name).rename(workdir / f"{name}-{saved_steps(workdir)[-1]}")


def check_remains(workdir: epath.Path, train: Training) -> bool:
    """Check what a run left in its workdir; return whether the run is finished.

    Raises:
        InputError: Something that the run had written is missing or damaged.
    """
    steps, folder = saved_steps(workdir), workdir / CHECKPOINTS
    exported = _check_export(workdir)
    logged = _logged_steps(workdir / METRICS_FILE)
    # Metrics begin after the folder of checkpoints is made; a save waits for the one before it.
    removed = logged and not folder.is_dir() and "://" not in str(folder)
    if not steps and (exported or removed or max(logged, default=0) > 2 * train.save_every):
        what = "a trained model" if exported else f"metrics up to step {max(logged)}"
        raise InputError(
            f"{workdir} holds {what}, but the checkpoints in {folder} are missing; "
            f"put them back to resume, {OR_ANEW}"
        )
    if steps and not logged and (steps[-1] >= train.log_every or exported):
        raise InputError(
            f"{workdir / METRICS_FILE} is missing or empty, but there is a checkpoint of step "
            f"{steps[-1]}; put the file back to resume, {OR_ANEW}"
        )
    return exported


def saved_steps(workdir: epath.Path) -> list[int]:
    """Return the steps of the checkpoints in a workdir, in order; damaged ones are not read."""
    folder = workdir / CHECKPOINTS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def _check_export(workdir: epath.Path) -> bool:
    """Return whether there is an exported model or adapter.

    Raises:
        InputError: There is, but without its weights.
    """
    folders = [workdir / name for name in (MODEL, ADAPTER) if (workdir / name).exists()]
    for folder in folders:
        if not _has_weights(folder):
            raise InputError(
                f"{folder} has no weights, or not all of them: its export was cut short; remove "
                f"that folder and resume, and it is written again"
            )
    return bool(folders)


def _has_weights(folder: epath.Path) -> bool:
    index = folder / INDEX_FILE
    if not index.is_file():
        return any((folder / name).is_file() for name in (SINGLE_FILE, WEIGHTS_FILE))
    mend = f"remove {folder} and resume, and it is written again"
    names = read_json(index, dict, mend).get("weight_map", {}).values()
    return bool(names) and all((folder / name).is_file() for name in set(names))


def _logged_steps(file: epath.Path) -> list[int]:
    """Return the steps of the lines of metrics; a last one that a crash cut short is left out.

    Raises:
        InputError: The file cannot be read, or another line is broken.
    """
    mend = f"put the file back to resume, {OR_ANEW}"
    try:
        lines = file.read_bytes().splitlines() if file.exists() else []
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); {mend}") from None
    steps: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(int(json.loads(line)["step"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            raise InputError(f"{file}, line {number}, is no line of metrics; {mend}") from error
    return steps
