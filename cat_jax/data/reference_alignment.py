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
) -> tuple[list[Rectangle], list[bool]]:
    """Find every occurrence of every span; causes count if they end before the effect's first row.

    Args:
        record: Record whose spans are searched for.
        ids: Token ids of its text.
        tokenizer: Tokenizer that made them.

    Returns:
        Rows and columns of the mask for each occurrence of an effect, and whether each span was
        found: of each annotation the effect, then its causes.

    Raises:
        InputError: A span has a ``start``, which the published aligner does not know.
    """
    rectangles, found = [], []
    for annotation in record.important:
        spans = (annotation.effect, *annotation.causes)
        pinned = [span for span in spans if span.start is not None]
        if pinned:
            raise InputError(
                f'{record.where or "a record"}: match "reference" searches for words, but '
                f'{pinned[0].text!r} is annotated with a start; use match "offsets", or leave the '
                "start out"
            )
        effects = _occurrences(annotation.effect.text, ids, tokenizer)
        causes = [_occurrences(cause.text, ids, tokenizer) for cause in annotation.causes]
        found += map(bool, (effects, *causes))
        for effect in effects:
            rows = range(effect.start - 1, min(effect.stop - 1, len(ids)))
            before = [cause for cause in chain(*causes) if cause.stop <= rows.start]
            if before:
                rectangles.append((rows, list(chain(*before))))
    return rectangles, found


def _occurrences(
    words: str, ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> list[range]:
    bare = _encode(words, tokenizer)
    # Whether the tokenizer itself puts a space before a text's first word.
    if _encode("a a", tokenizer) == 2 * _encode("a", tokenizer):
        return [range(start, start + len(bare)) for start in _runs(bare, ids)]
    spaced = _encode(f" {words}", tokenizer)
    starts, size = _runs(spaced, ids), len(spaced)
    if bare and ids[: len(bare)] == bare:
        # As published: where the words begin the text, all occurrences take their length there.
        starts, size = [0, *starts], len(bare)
    return [range(start, start + size) for start in starts]


def _runs(part: list[int], ids: Sequence[int]) -> list[int]:
    """Return every index at which ``part`` occurs in ``ids``."""
    size = len(part)
    return [i for i in range(len(ids) - size + 1) if ids[i : i + size] == part] if part else []


def _encode(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
