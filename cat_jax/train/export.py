"""Export of a trained model for other programs: for transformers, or an adapter for PEFT."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.config import Dtype
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
    end_ids: Iterable[int] = (),
    dtype: Dtype | None = None,
) -> epath.Path:
    """Write a model folder for transformers or, with ``lora``, an adapter folder for PEFT.

    Where several processes hold the parameters, all call this and the primary one writes.

    Args:
        folder: Folder to write; must not exist.
        config: Configuration of the model.
        trained: Parameters of the model, or adapters.
        tokenizer: Saved beside them.
        lora: Form of the adapters.
        base_name: Pretrained model, whose settings are taken over; see ``save_pretrained``.
        end_ids: Token ids that end an answer, besides those of model or tokenizer.
        dtype: Dtype of the weights; None takes the pretrained model's, and float32 for adapters.

    Raises:
        InputError: The folder exists, or parameters are not finite.
    """
    with _local_folder(epath.Path(folder)) as local:
        if lora is None:
            source = {"source": base_name, "end_ids": end_ids, "dtype": dtype}
            save_pretrained(local, config, trained, tokenizer, **source)
        else:
            base = {"base": base_name or "", "end_ids": end_ids, "dtype": dtype or "float32"}
            save_adapter(local, config, trained, lora, tokenizer, **base)
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
