"""The published aligner, inferred from its outputs: an exact search for runs of tokens.

Source: CAT (Han et al., EMNLP 2025). It loses a span whose last character merges with what
follows ("41.9%" before ";" becomes "%;"). It exists to reproduce published masks.
"""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from cat_jax.data.bitset import Rectangle
from cat_jax.data.records import Record
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def reference_rectangles(
    record: Record, ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[Rectangle], int]:
    """Finds every place of every span; a cause counts if it ends before the effect's first row.

    Args:
        record: spans are searched by their words.
        ids: the tokens of its text.
        tokenizer: the one they are from.

    Returns:
        Rows and columns of each place of an effect, and how many spans were found.

    Raises:
        InputError: a span has a ``start``, which the published aligner cannot follow.
    """
    rectangles, found = [], 0
    for note in record.important:
        pinned = [span for span in (note.effect, *note.causes) if span.start is not None]
        if pinned:
            raise InputError(
                f"reference matching finds words by themselves, but {pinned[0].text!r} is "
                "annotated with a start; match by offsets, or leave the start out"
            )
        effects = _places(note.effect.text, ids, tokenizer)
        causes = [_places(cause.text, ids, tokenizer) for cause in note.causes]
        found += bool(effects) + sum(map(bool, causes))
        for effect in effects:
            rows = range(effect.start - 1, min(effect.stop - 1, len(ids)))
            before = [place for place in chain(*causes) if place.stop <= rows.start]
            if before:
                rectangles.append((rows, list(chain(*before))))
    return rectangles, found


def _places(words: str, ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> list[range]:
    bare = _encode(words, tokenizer)
    # Whether the tokenizer itself puts a space before a text's first word.
    if _encode("a a", tokenizer) == 2 * _encode("a", tokenizer):
        return [range(start, start + len(bare)) for start in _runs(bare, ids)]
    spaced = _encode(f" {words}", tokenizer)
    starts, size = _runs(spaced, ids), len(spaced)
    if bare and ids[: len(bare)] == bare:
        # As published: words that begin the text give their length to all their places.
        starts, size = [0, *starts], len(bare)
    return [range(start, start + size) for start in starts]


def _runs(part: list[int], ids: Sequence[int]) -> list[int]:
    """Gives all starts of ``part`` in ``ids``."""
    size = len(part)
    return [i for i in range(len(ids) - size + 1) if ids[i : i + size] == part] if part else []


def _encode(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
