"""Tokenizers of pretrained models."""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cat_jax.errors import InputError

NO_TOKENIZER = "holds no tokenizer that transformers can read: add its tokenizer.json"


def load_tokenizer(name: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder or hub name.

    Raises:
        InputError: There is none, or it has tokens that a model of ``vocab_size`` does not know.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} {NO_TOKENIZER} ({type(error).__name__})") from error
    # Without files, some families get a tokenizer of no words.
    if not tokenizer("a", add_special_tokens=False).input_ids:
        raise InputError(f"{name} {NO_TOKENIZER}")
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, but the model knows "
            f"{vocab_size}: use the tokenizer that belongs to it"
        )
    return tokenizer
