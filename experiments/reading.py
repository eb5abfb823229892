"""Settings of commands that read records as training will."""

from dataclasses import dataclass

from cat_jax.data.alignment import Match
from cat_jax.ranges import Count, check_ranges


@dataclass(frozen=True)
class Model:
    """Whose tokenizer and chat template.

    Attributes:
        name: Hugging Face folder or hub name, PEFT folder, or folder of a run.
    """

    name: str


@dataclass(frozen=True)
class Train:
    """How training will read the records.

    Attributes:
        max_length: Longest sequence in tokens; longer records are left out and counted.
        match: How annotated words are found.
    """

    max_length: Count = 256
    match: Match = "offsets"

    def __post_init__(self):
        check_ranges(self, "train")
