"""What a name stands for: a model, an adapter and its base model, or the result of a run."""

from dataclasses import dataclass
from pathlib import Path

from cat_jax.errors import InputError
from cat_jax.models.huggingface.peft import CONFIG_FILE as ADAPTER_CONFIG
from cat_jax.models.huggingface.peft import base_name
from cat_jax.models.huggingface.weights import is_folder, local_folder

RESULTS = ("model", "adapter")
"""Folders in which a run leaves what it trained."""


@dataclass(frozen=True)
class Located:
    """Local folders of a model.

    Attributes:
        model: Hugging Face folder.
        adapter: PEFT folder to apply to it; None for a model by itself.
    """

    model: Path
    adapter: Path | None = None

    @property
    def companions(self) -> Path:
        """Return the folder whose tokenizer and end tokens count: the adapter's, if it has any."""
        if self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file():
            return self.adapter
        return self.model


def locate(name: str | Path, base: str | Path | None = None) -> Located:
    """Find the local folders of a model, downloading what is on the hub.

    Args:
        name: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        base: Base model of an adapter; None takes the one that the adapter names.

    Raises:
        InputError: There is no such model, an adapter names no base, or ``base`` is given for
            something that is no adapter.
    """
    if not is_folder(name):
        if base is not None:
            raise _no_adapter(name)
        return Located(local_folder(name))
    folder = Path(name)
    for result in RESULTS:
        if not (folder / ADAPTER_CONFIG).is_file() and (folder / result).is_dir():
            folder = folder / result
            break
    if (folder / ADAPTER_CONFIG).is_file():
        base = base or base_name(folder)
        if base is None:
            raise InputError(f"the adapter {folder} names no base model: give it")
        return Located(local_folder(base), folder)
    if base is not None:
        raise _no_adapter(name)
    return Located(folder)


def _no_adapter(name: str | Path) -> InputError:
    return InputError(f"{name} is no adapter folder (without {ADAPTER_CONFIG}): give no base")
