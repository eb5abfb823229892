"""Word-level tokenizers for models trained from scratch."""

from collections.abc import Iterable
from itertools import chain
from typing import Literal

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerFast

Pieces = Literal["fields", "words"]

PIECE = r"[,;.]? ?[A-Z][A-Za-z() ]*: |\d{1,2}"
"""What a token is: a field name with its separators (", Room size: "), one or two digits, or
whatever stands between these."""
WORDS = r"\w+"
"""What a token is where pieces are words: a word, or what stands between two."""

NUMBERS = [str(n) for n in range(100)] + [f"0{n}" for n in range(10)]

END = "<end>"
UNKNOWN = "<unknown>"


def train_tokenizer(texts: Iterable[str], pieces: Pieces = "fields") -> PreTrainedTokenizerFast:
    """Return a tokenizer whose vocabulary is every piece of the texts and all of 0-99 and 00-09.

    Offsets are exact, and decoding restores the text.

    Args:
        texts: Texts.
        pieces: "fields" for "NAME: VALUE" texts, whose sequences are short enough for a laptop
            ("Smoking: 8" is two tokens), or "words".
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(
        Regex(PIECE if pieces == "fields" else WORDS), behavior="isolated"
    )
    tokenizer.decoder = Fuse()
    trainer = WordLevelTrainer(special_tokens=[UNKNOWN, END], show_progress=False)
    tokenizer.train_from_iterator(chain(texts, NUMBERS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=END, pad_token=END
    )
