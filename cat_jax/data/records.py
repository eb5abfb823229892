"""Records: a prompt, its answer, and which words the answer depends on (method.md, section 1)."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """Words of a record's text.

    Attributes:
        text: the words.
        start: character offset into ``Record.text``; None means "find them".
    """

    text: str
    start: int | None = None


@dataclass(frozen=True)
class Annotation:
    """An effect and the causes it may attend to."""

    effect: Span
    causes: tuple[Span, ...]


@dataclass(frozen=True)
class Record:
    """One training or test row; ``text`` is what a model reads."""

    input: str
    target: str
    important: tuple[Annotation, ...] = field(default=())

    @property
    def text(self) -> str:
        """The prompt followed by the answer."""
        return self.input + self.target
