"""Weights & Biases: an optional package, which reads its own keys from the environment."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from etils import epath

from cat_jax.errors import InputError
from cat_jax.files import write_text

ID_FILE = "wandb_id.txt"


def check_tracker(project: str | None) -> None:
    """Raise InputError if a project is named but the package is missing."""
    if project is not None and find_spec("wandb") is None:
        raise InputError(
            "train.wandb_project needs the package wandb: pip install 'cat-jax[wandb]', or leave "
            "it out"
        )


def open_tracker(project: str | None, folder: epath.Path | None, config: dict[str, Any]) -> Any:
    """Return the Weights & Biases run of a workdir, new or continued; None for no project.

    Account and mode are wandb's own settings (``WANDB_API_KEY``, ``WANDB_MODE=offline``, ...). On
    resuming it drops steps that it has already.

    Raises:
        InputError: The package is missing, or refuses to start.
    """
    check_tracker(project)
    if project is None:
        return None
    wandb = import_module("wandb")
    file = None if folder is None else folder / ID_FILE
    known = file.read_text() if file is not None and file.exists() else None
    local = None if folder is None or "://" in str(folder) else str(folder)
    try:
        run = wandb.init(
            project=project,
            name=None if folder is None else folder.name,
            id=known,
            resume="allow",
            dir=local,
            config=config,
        )
    except wandb.Error as error:
        raise InputError(
            f"Weights & Biases does not start: {error}; set WANDB_API_KEY or WANDB_MODE=offline, "
            "or leave out train.wandb_project"
        ) from error
    if file is not None:
        write_text(file, run.id)
    return run
