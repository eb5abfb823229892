"""What an annotator says of a record: which words depend on which, and of what kind they are."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Words(_Strict):
    """Words of a record's text.

    Attributes:
        text: The words as they stand there.
        kind: Kind of span, of the prior's graph.
        occurrence: Which occurrence of the words, from 1, where there are several.
    """

    text: Annotated[str, Field(min_length=1)]
    kind: str
    occurrence: Annotated[int, Field(ge=1)] | None = None


class Dependency(_Strict):
    """An effect and the words that it depends on.

    Attributes:
        effect: Words that depend on others.
        causes: These others; all of them stand before the effect.
    """

    effect: Words
    causes: Annotated[tuple[Words, ...], Field(min_length=1)]


class Reply(_Strict):
    """All dependencies of a record.

    Attributes:
        annotations: The dependencies, that of the answer among them.
    """

    annotations: Annotated[tuple[Dependency, ...], Field(min_length=1)]
