"""Export of a trained model for other programs: for transformers, or an adapter for PEFT."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from etils import epath
from transformers import AutoConfig, PreTrainedTokenizerBase

from cat_jax.distributed import is_primary
from cat_jax.models import LoraConfig, ModelConfig, save_adapter, save_pretrained

MODEL, ADAPTER = "model", "adapter"


def export_model(
    folder: str | PathLike[str],
    config: ModelConfig,
    trained: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lora: LoraConfig | None = None,
    base_name: str | None = None,
) -> epath.Path:
    """Write a model folder for transformers or, with ``lora``, an adapter folder for PEFT.

    Where several processes hold the parameters, all call this and the primary one writes.

    Args:
        folder: Folder to write; must not exist.
        config: Configuration of the model.
        trained: Parameters of the model, or adapters.
        tokenizer: Saved beside the model.
        lora: Form of the adapters.
        base_name: Pretrained model, whose context length and special tokens are taken over.

    Raises:
        InputError: The folder exists.
    """
    with _local_folder(epath.Path(folder)) as local:
        if lora is not None:
            save_adapter(local, config, trained, lora, base=base_name or "")
        else:
            like = None if base_name is None else AutoConfig.from_pretrained(base_name)
            save_pretrained(local, config, trained, tokenizer, like=like)
    return epath.Path(folder)


@contextmanager
def _local_folder(folder: epath.Path) -> Iterator[Path]:
    """Give a local folder to write; for an object store it is copied there afterwards."""
    if "://" not in str(folder):
        yield Path(folder)
        return
    with TemporaryDirectory() as temporary:
        local = Path(temporary) / folder.name
        yield local
        if is_primary():
            folder.mkdir(parents=True, exist_ok=True)
            for file in local.iterdir():
                epath.Path(file).copy(folder / file.name)
