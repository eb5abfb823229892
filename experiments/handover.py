"""What a run leaves for other programs: a model for transformers, or an adapter for PEFT."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from cat_jax.config import Pretrained, PretrainedLora, Scratch
from cat_jax.distributed import broadcast_from_primary
from cat_jax.models import ModelConfig, save_adapter, save_pretrained

MODEL, ADAPTER = "model", "adapter"


def export_model(
    folder: Path,
    source: Scratch | Pretrained,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    trained: Any,
) -> Path:
    """Writes ``folder/model`` or, for adapters, ``folder/adapter``, if it is not there yet.

    Returns:
        Where it lies.
    """
    place = folder / (ADAPTER if isinstance(source, PretrainedLora) else MODEL)
    if broadcast_from_primary(place.exists()):
        return place
    if isinstance(source, PretrainedLora):
        save_adapter(place, config, trained, source.lora, base=source.name)
    else:
        like = AutoConfig.from_pretrained(source.name) if isinstance(source, Pretrained) else None
        save_pretrained(place, config, trained, tokenizer, like=like)
    return place
