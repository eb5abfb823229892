"""A model together with its parameters and tokenizer: what runs start from, and what they give."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """

    model: CausalLM
    params: Any
    tokenizer: "PreTrainedTokenizerBase"
