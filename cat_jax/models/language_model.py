"""A model together with its parameters and tokenizer: what runs start from, and what they give."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cat_jax.config import Dtype, ParamDtype
from cat_jax.models.huggingface.companions import listed_end_ids
from cat_jax.models.huggingface.located import locate
from cat_jax.models.huggingface.peft import load_adapter
from cat_jax.models.huggingface.weights import load_pretrained
from cat_jax.models.lora import attach_lora
from cat_jax.models.tokenizer import load_tokenizer
from cat_jax.models.transformer import CausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model in memory.

    Attributes:
        model: The Flax module; ``model.apply({"params": params}, tokens)``.
        params: Its parameters, adapters attached.
        tokenizer: Its tokenizer, a fast one.
        end_ids: Token ids that end an answer, besides the tokenizer's end token.
    """

    model: CausalLM
    params: Any
    tokenizer: "PreTrainedTokenizerBase"
    end_ids: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return all ids that end an answer; none for a tokenizer without an end token."""
        own = self.tokenizer.eos_token_id
        return tuple(sorted({*self.end_ids, *([own] if isinstance(own, int) else [])}))


def load_language_model(
    name: str | Path,
    *,
    base: str | Path | None = None,
    dtype: Dtype = "float32",
    param_dtype: ParamDtype = "float32",
) -> LanguageModel:
    """Load model, tokenizer and end tokens.

    Args:
        name: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        base: Base model of an adapter; None takes the one that the adapter names.
        dtype: Dtype of activations.
        param_dtype: Dtype of the parameters, as in ``load_pretrained``; adapters are float32.

    Raises:
        InputError: The model or its tokenizer cannot be read, or they do not belong together.
    """
    found = locate(name, base)
    config, params = load_pretrained(found.model, dtype=dtype, param_dtype=param_dtype)
    if found.adapter is not None:
        lora, adapters = load_adapter(found.adapter, config)
        params = attach_lora(params, adapters, lora)
    tokenizer = load_tokenizer(str(found.companions), config.vocab_size)
    ends = listed_end_ids(found.companions)
    return LanguageModel(CausalLM(config), params, tokenizer, end_ids=ends)
