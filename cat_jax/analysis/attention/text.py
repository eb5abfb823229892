"""A text as a model reads it: its tokens, what kind each is, and where words stand among them."""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import encode_records, end_id_of, token_indices
from cat_jax.data.encoding import Encoding, check_offsets, encode_texts
from cat_jax.data.matching import find_span
from cat_jax.data.records import Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks.controls.places import answer_causes

Kind = Literal["cause", "effect", "spurious", "other"]
"""A token is of a cause of the answer, of the answer, of words that only correlate with it."""
Words = str | Span
Places = int | Words | Iterable[int | Words]
"""Positions, words that are searched for as those of annotations are, or several of either."""

_PLACES = "places in a text are positions, words or spans"


@dataclass(frozen=True)
class ReadText:
    """A tokenised text.

    Attributes:
        text: Its characters.
        encoding: Its T tokens.
        tokens: Text of each token. Tokens that share the bytes of a character all show it; special
            tokens that the tokenizer adds show their names.
        kinds: Kind of each token.
    """

    text: str
    encoding: Encoding
    tokens: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def positions(self, words: Words) -> list[int]:
        """Return the positions of all tokens of some words, where they occur.

        Raises:
            InputError: They do not.
        """
        if not isinstance(words, str | Span):
            raise InputError(f"words are a text or a Span, got {words!r}")
        span = Span(words) if isinstance(words, str) else words
        found = token_indices(self.encoding, find_span(self.text, span))
        if not found:
            at = "" if span.start is None else f" at character {span.start}"
            raise InputError(
                f"the words {span.text!r} do not stand{at} in the text; words are found whole, as "
                "those of annotations are"
            )
        return sorted(set(found))

    def keys(self, places: Places | None) -> list[int]:
        """Return positions, and those of the tokens of words; of None all causes.

        Raises:
            InputError: There are none, or one is outside the text.
        """
        if places is None:
            return self._of_kind("cause")
        return self._checked(places, self.positions)

    def queries(self, places: Places | None) -> list[int]:
        """Return positions, and of words the queries that predict their tokens; of None the answer.

        As training has it, the query that predicts a token is at the position before it.

        Raises:
            InputError: There are none, or one is outside the text.
        """
        if places is None:
            return _predicting(self._of_kind("effect"), "the answer")
        return self._checked(places, lambda words: _predicting(self.positions(words), repr(words)))

    def _of_kind(self, kind: Kind) -> list[int]:
        found = [position for position, other in enumerate(self.kinds) if other == kind]
        if not found:
            raise InputError(
                f"no token is known to be of the kind {kind!r}; name words or positions, or read "
                "an annotated Record"
            )
        return found

    def _checked(self, places: Places, find: Callable[[Any], list[int]]) -> list[int]:
        found: set[int] = set()
        for place in _several(places):
            if isinstance(place, str | Span):
                found.update(find(place))
            else:
                found.add(_inside(place, len(self.tokens)))
        if not found:
            raise InputError("no words or positions are named; name at least one")
        return sorted(found)


def read_text(
    text: str | Record, tokenizer: PreTrainedTokenizerBase, spurious: Places = ()
) -> ReadText:
    """Tokenise a text, or a record as in training, with its end token.

    Of a record, the target is the effect, and its annotated causes in the prompt are the causes. A
    token of both is of a cause rather than spurious.

    Args:
        text: A text, or prompt and answer.
        tokenizer: Fast tokenizer.
        spurious: Words or positions that only correlate with the answer.

    Raises:
        InputError: A tokenizer without offsets, a text without tokens, or words that it lacks.
    """
    if isinstance(text, Record):
        ((_, _, _, encoding),) = encode_records(
            [text], tokenizer, end_id_of(tokenizer, "offsets"), []
        )
        causes = token_indices(encoding, answer_causes(text))
        characters = text.text
        start = len(characters) - len(text.target.lstrip())
        effects = token_indices(encoding, [range(start, len(characters.rstrip()))])
    else:
        if not isinstance(text, str):
            raise InputError(f"one text or Record is read at a time, got a {type(text).__name__}")
        check_offsets(tokenizer)
        (encoding,) = encode_texts([text], tokenizer, has_special_tokens=False)
        causes, effects, characters = [], [], text
    if not encoding.ids:
        raise InputError("the text has no tokens; give one with at least a word")
    tokens = tuple(
        characters[start:end] or str(tokenizer.convert_ids_to_tokens(token))
        for token, start, end in zip(encoding.ids, encoding.starts, encoding.ends, strict=True)
    )
    kinds: list[Kind] = ["other"] * len(tokens)
    read = ReadText(characters, encoding, tokens, tuple(kinds))
    marked = _several(spurious)
    of_kind: dict[Kind, list[int]] = {
        "spurious": read.keys(marked) if marked else [],
        "effect": effects,
        "cause": causes,
    }
    for kind, positions in of_kind.items():
        for position in positions:
            kinds[position] = kind
    return ReadText(characters, encoding, tokens, tuple(kinds))


def check_records(records: Sequence[Record], use: str) -> None:
    """Check that there are records, and nothing else among them.

    Raises:
        InputError: They are something else.
    """
    if isinstance(records, str | Record):
        raise InputError(f"one {type(records).__name__} is no list of records; give [record]")
    if not len(records):
        raise InputError(f"there are no records to {use}; give at least one")
    for place, record in enumerate(records):
        if not isinstance(record, Record):
            raise InputError(f"records[{place}] is a {type(record).__name__}; give a Record")


def _predicting(positions: Sequence[int], words: str) -> list[int]:
    """Return the queries that predict tokens; nothing predicts the first.

    Raises:
        InputError: The first is all there is.
    """
    found = [position - 1 for position in positions if position]
    if not found:
        raise InputError(f"no query predicts {words}: it is the first token; name words after it")
    return found


def _several(places: Any) -> list[Any]:
    """Return places as a list."""
    if isinstance(places, str | Span) or _index(places) is not None:
        return [places]
    try:
        return [*places]
    except TypeError:
        raise InputError(f"{_PLACES}, or several of these, got {places!r}") from None


def _index(place: Any) -> int | None:
    """Return a whole number of any library."""
    try:
        return None if isinstance(place, bool) else operator.index(place)
    except TypeError:
        return None


def _inside(place: Any, tokens: int) -> int:
    index = _index(place)
    if index is None:
        raise InputError(f"{_PLACES}, got {place!r}")
    if not -tokens <= index < tokens:
        raise InputError(f"the text has positions 0 to {tokens - 1}, got {index}")
    return index % tokens
