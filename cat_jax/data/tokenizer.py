"""Word-level tokenizer for models trained from scratch on "NAME: VALUE" texts."""

from collections.abc import Iterable
from itertools import chain

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerFast

PIECE = r"[,;.]? ?[A-Z][A-Za-z() ]*: |\d{1,2}"
"""What a token is: a field name with its separators (", Room size: "), one or two digits, or
whatever stands between these."""

NUMBERS = [str(n) for n in range(100)] + [f"0{n}" for n in range(10)]

END = "<end>"
UNKNOWN = "<unknown>"


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose vocabulary is every piece of the texts and all of 0-99 and 00-09.

    Sequences are short enough for a laptop ("Smoking: 8" is two tokens), offsets are exact, and
    decoding restores the text.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = Fuse()
    trainer = WordLevelTrainer(special_tokens=[UNKNOWN, END], show_progress=False)
    tokenizer.train_from_iterator(chain(texts, NUMBERS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=END, pad_token=END
    )
