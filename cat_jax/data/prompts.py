"""Prompts as token ids, the same ids that training puts before an answer.

Training tokenises a prompt and its answer together; a prompt whose answer is unknown is tokenised
alone. The ids are the same unless one token spans the border between them. Such a token belongs to
the answer (``cat_jax.data.alignment.align_records``), so

- where a prompt ends with whitespace that the tokenizer merges with a word ("Answer: " before
  " High"), the whitespace is left out, and the answer begins with a token that spells it;
- where a prompt ends inside a word ("Hel" before "lo"), no ids of the prompt alone can be those of
  training: the prompt is tokenised as it stands. Evaluation knows the answer and feeds the ids
  of training in every case.
"""

from dataclasses import dataclass
from string import ascii_letters
from typing import TYPE_CHECKING, cast

from cat_jax.data.encoding import Encoding, check_offsets, encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LETTERS = ascii_letters
"""Beginnings of words, which show whether a tokenizer merges whitespace with a word."""


@dataclass(frozen=True)
class Prompt:
    """A prompt to continue.

    Attributes:
        ids: Token ids to feed.
        held: Whitespace at the prompt's end that is not in ``ids``, in the tokenizer's spelling
            ("Ġ", "▁"); empty if nothing is left out.
    """

    ids: list[int]
    held: str = ""


def encode_prompt(
    text: str, tokenizer: "PreTrainedTokenizerBase", *, has_special_tokens: bool = False
) -> Prompt:
    """Tokenise a prompt as training tokenises it before an answer.

    Neither an end token that the tokenizer appends nor a second BOS is part of it.

    Args:
        text: The prompt; of an empty one the tokenizer's BOS is left, if it has one.
        tokenizer: Fast tokenizer.
        has_special_tokens: Whether the text spells out its special tokens, as chat templates do.

    Raises:
        InputError: The tokenizer has no character offsets.
    """
    check_offsets(tokenizer)
    if text and not text[-1].isspace():
        return _alone(text, tokenizer, has_special_tokens)
    followed = [text + letter for letter in (LETTERS if text else LETTERS[:1])]
    encodings = encode_texts(followed, tokenizer, has_special_tokens=has_special_tokens)
    prompts = [
        _before_letter(encoding, len(text), letter, tokenizer)
        for encoding, letter in zip(encodings, LETTERS, strict=False)
    ]
    prompt = min(prompts, key=lambda prompt: not prompt.held)
    # A space alone is what the model continues from, where there is nothing else.
    return prompt if prompt.ids or not text else _alone(text, tokenizer, has_special_tokens)


def first_ids(prompt: Prompt, tokenizer: "PreTrainedTokenizerBase") -> list[int] | None:
    """Return the tokens with which the answer to a prompt may begin; None if all of them may."""
    if not prompt.held:
        return None
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [n for n, piece in enumerate(pieces) if piece and piece.startswith(prompt.held)]


def _before_letter(
    encoding: Encoding, size: int, letter: str, tokenizer: "PreTrainedTokenizerBase"
) -> Prompt:
    """Return the prompt of ``size`` characters that a letter follows."""
    border = next(n for n, end in enumerate(encoding.ends) if end > size)
    piece = cast("str", tokenizer.convert_ids_to_tokens(encoding.ids[border]))
    merged = size and piece.lower().endswith(letter.lower())
    return Prompt(encoding.ids[:border], piece[:-1] if merged else "")


def _alone(text: str, tokenizer: "PreTrainedTokenizerBase", has_special_tokens: bool) -> Prompt:
    (encoding,) = encode_texts([text], tokenizer, has_special_tokens=has_special_tokens)
    # What the tokenizer appends stands for no character.
    written = [n for n, end in enumerate(encoding.ends) if end]
    return Prompt(encoding.ids[: written[-1] + 1] if written else encoding.ids)
