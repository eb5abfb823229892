"""Weights & Biases, for those who have it: an optional package, and keys that it finds itself."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cat_jax.errors import InputError

ID_FILE = "wandb_id.txt"


def check_tracker(project: str | None) -> None:
    """Raises InputError if a project is named but the package is missing."""
    if project is not None and find_spec("wandb") is None:
        raise InputError(
            "train.wandb_project needs the package wandb: pip install 'cat-jax[wandb]', or leave "
            "it out"
        )


def open_tracker(project: str | None, folder: Path, config: dict[str, Any]) -> Any:
    """The run at Weights & Biases that belongs to a folder, new or continued; None for no project.

    Whose it is and where it goes, wandb reads from its own settings (``WANDB_API_KEY``,
    ``WANDB_MODE=offline``, ...). On resuming it drops steps that it has seen already.

    Raises:
        InputError: the package is missing, or refuses to start.
    """
    check_tracker(project)
    if project is None:
        return None
    wandb = import_module("wandb")
    file = folder / ID_FILE
    known = file.read_text() if file.exists() else None
    try:
        run = wandb.init(
            project=project,
            name=folder.name,
            id=known,
            resume="allow",
            dir=str(folder),
            config=config,
        )
    except wandb.Error as error:
        raise InputError(
            f"Weights & Biases does not start: {error}; set WANDB_API_KEY or WANDB_MODE=offline, "
            "or leave out train.wandb_project"
        ) from error
    file.write_text(run.id)
    return run
