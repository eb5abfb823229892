"""Texts as token ids with character offsets: one function for training and for prompts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE = "▁"
"""How SentencePiece spells a space, and the dummy prefix that it puts before a first word."""


@dataclass(frozen=True)
class Encoding:
    """A tokenised text.

    Attributes:
        ids: Token ids.
        starts: Offset of the first character of each token.
        ends: Offset after the last character of each token.
        dummies: Indices of dummy prefixes: tokens that stand for no character of the text,
            although their offsets are those of the character that follows.
    """

    ids: list[int]
    starts: list[int]
    ends: list[int]
    dummies: frozenset[int] = frozenset()


def check_offsets(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise InputError if the tokenizer has no character offsets."""
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer "
            "(a folder with tokenizer.json)"
        )


def encode_texts(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", *, has_special_tokens: bool
) -> Iterator[Encoding]:
    """Tokenise texts.

    Args:
        texts: Texts.
        tokenizer: Fast tokenizer.
        has_special_tokens: Whether the texts spell out their special tokens, as chat templates do;
            otherwise the tokenizer adds its own, but no second BOS to a text that begins with one.
    """
    if not texts:
        return
    encoded = tokenizer(
        texts,
        add_special_tokens=not has_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    dummy, bos, bos_id = _token_id(tokenizer, SPACE), tokenizer.bos_token, tokenizer.bos_token_id
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        if isinstance(bos, str) and text.startswith(bos) and ids[:2] == [bos_id, bos_id]:
            ids, offsets = ids[1:], offsets[1:]  # the text has one
        dummies = frozenset[int]()
        if dummy in ids:
            dummies = frozenset(
                n
                for n, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True))
                if token == dummy and not text[start:end].startswith((" ", SPACE))
            )
        starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
        yield Encoding(ids, starts, ends, dummies)


def _token_id(tokenizer: "PreTrainedTokenizerBase", token: str) -> int | None:
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or tokenizer.convert_ids_to_tokens(found) != token:
        return None
    return found
