"""How a drawn causal model is put into words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cat_jax.tasks.wording import LINK

WordingName = Literal["list", "sentences", "table", "json"]


@dataclass(frozen=True)
class Wording:
    """A form of text that lists factors.

    Attributes:
        link: Between name and value.
        item: Before the name and after the value.
        separator: Between two factors.
        ends: Before the first factor and after the last.
    """

    link: str
    item: tuple[str, str]
    separator: str
    ends: tuple[str, str]

    def write(self, values: Mapping[str, float]) -> str:
        """List factors in their order."""
        (before, after), (start, stop) = self.item, self.ends
        items = (f"{before}{name}{self.link}{value}{after}" for name, value in values.items())
        return f"{start}{self.separator.join(items)}{stop}"


WORDINGS: dict[WordingName, Wording] = {
    "list": Wording(LINK, ("", ""), ", ", ("", ". ")),
    "sentences": Wording(" is ", ("", "."), " ", ("", " ")),
    "table": Wording(" | ", ("| ", " |"), "\n", ("| Factor | Value |\n|---|---|\n", "\n")),
    "json": Wording('": ', ('"', ""), ", ", ("{", "}\n")),
}


def question(outcome: str, words: Sequence[str]) -> str:
    """Ask for the answer: one of some words, or a number where there are none."""
    if not words:
        return f"What is the {outcome}, as a number?"
    return f"Is the {outcome} {', '.join(words[:-1])} or {words[-1]}?".lower().capitalize()
