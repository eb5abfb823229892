"""Next-token loss on plain texts: what a model forgets of them while it is tuned on something else.

Measured before and after, with the same texts and settings, the rise of the loss is what was lost.
Every Python comes with texts to measure on: its licence, and pages of its language reference
(``python_texts``). They are English prose, with some code and grammar. A pretrained model may have
read them; what matters is that the tuning did not.
"""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cat_jax.data.encoding import check_offsets, encode_texts
from cat_jax.errors import InputError
from cat_jax.evaluation.token_scores import token_scores
from cat_jax.models import LanguageModel
from cat_jax.ranges import Count, check_number

PYTHON_TOPICS = (
    "execmodel", "objects", "import", "debugger", "comparisons", "with", "try", "raise",
    "global", "assert", "numeric-types", "typesmethods", "class", "truth",
)  # fmt: skip
"""Pages of the reference that ``python_texts`` takes; another choice gets another ``VERSION``."""

VERSION = 1

LICENCES = ("LICENSE.txt", "LICENSE")


@dataclass(frozen=True)
class TextLoss:
    """Loss on texts.

    Attributes:
        loss: Mean next-token loss, in nats per token.
        tokens: Tokens that were predicted.
    """

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Perplexity per token."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def __str__(self) -> str:
        return f"{self.loss:.4f} nats/token, perplexity {self.perplexity:.2f}, {self.tokens} tokens"


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Texts with what tells them from others.

    Attributes:
        name: What they are, and of which version.
        texts: The texts.
    """

    name: str
    texts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the texts, each after its length: equal texts alone compare."""
        content = b"".join(b"%d\n%s" % (len(x), x) for x in (t.encode() for t in self.texts))
        return sha256(content).hexdigest()

    def __getitem__(self, index):
        return self.texts[index]

    def __len__(self) -> int:
        return len(self.texts)


def text_loss(
    model: LanguageModel, texts: Sequence[str], *, max_length: int = 512, batch_size: int = 64
) -> TextLoss:
    """Return the mean next-token loss on plain texts, over all tokens of all texts.

    A text is read in windows, each of which starts with the last token of the one before, so that
    every token but the first is predicted once. A first token is one that the tokenizer adds (BOS),
    or else that of the text.

    Args:
        model: Model and tokenizer, such as a ``RunResult`` or what ``load_language_model`` gives.
        texts: Texts; a text of one token adds nothing.
        max_length: Tokens of a window; at most the model's ``max_positions``.
        batch_size: Most windows that are computed at a time.

    Raises:
        InputError: No token to predict, a size below one, or a tokenizer without offsets.
    """
    check_number("max_length", max_length, Count)
    check_offsets(model.tokenizer)
    length = min(max_length, model.model.config.max_positions)
    windows: list[list[int]] = []
    for encoding in encode_texts(list(texts), model.tokenizer, has_special_tokens=False):
        ids = encoding.ids
        windows += [ids[start : start + length + 1] for start in range(0, len(ids) - 1, length)]
    if not windows:
        raise InputError("the texts have no token to predict: give at least one of two tokens")
    targets = [range(1, len(window)) for window in windows]
    scored = token_scores(model.model, model.params, windows, targets, batch_size=batch_size)
    total = math.fsum(scores.total for _, scores in scored)
    tokens = sum(map(len, targets))
    return TextLoss(-total / tokens, tokens)


def python_texts() -> Texts:
    """Return the licence and some pages of the language reference of this Python.

    They differ a little between versions of Python: compare results of one ``sha256``.

    Raises:
        InputError: This Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics

        pages = [topics[name] for name in PYTHON_TOPICS]
    except (ImportError, KeyError) as error:
        raise InputError(
            f"this Python has no pages of its reference (pydoc_data: {error}); install them, or "
            "give texts of your own"
        ) from error
    # Where the site module looks for what license() shows.
    library = Path(os.__file__).parent
    places = [folder / name for folder in (library, library.parent) for name in LICENCES]
    licence = next((place for place in places if place.is_file()), None)
    if licence is None:
        raise InputError(
            f"this Python has no licence in {places[0]}; put it there, or give texts of your own"
        )
    name = f"python_texts {VERSION}, Python {platform.python_version()}"
    return Texts(name, (licence.read_text("utf-8"), *pages))
