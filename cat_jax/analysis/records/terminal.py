"""Shown records in a terminal."""

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cat_jax.analysis.records.show import ShownRecord, ShownRecords, words

if TYPE_CHECKING:
    from rich.console import RenderableType

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
"""Of the effects of a record, in turn."""
TRAINED = "bold underline"
LEGEND = "trained tokens are bold and underlined; a cause has the colour of its effect"


def renderable(shown: ShownRecords) -> "RenderableType":
    """Return what rich's console prints in colour."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in shown.facts():
        table.add_row(name, value)
    parts: list[RenderableType] = [Text(LEGEND, style="dim"), Text()]
    for record in shown.records:
        parts += [*_record(record), Text()]
    return Group(*parts, table)


def plain_text(shown: ShownRecords) -> str:
    """Return the same without colour: trained tokens stand in brackets."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable(shown))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().replace(LEGEND, "trained tokens are in the last line of each record")


def _record(record: ShownRecord) -> list[Text]:
    lines = [Text(record.where, style="bold dim")]
    if record.left_out is not None:
        lines.append(Text(f"left out: {record.left_out}", style="red"))
    if not record.tokens:
        return lines
    lines.append(_tokens(record))
    for number, dependence in enumerate(record.dependences):
        colour = COLOURS[number % len(COLOURS)]
        line = Text("  ")
        line.append(" … ".join(words(record, dependence.effects)), style=f"bold {colour}")
        line.append("  depends on  ", style="dim")
        line.append(" | ".join(words(record, dependence.causes)), style=colour)
        lines.append(line)
    trained = " … ".join(words(record, record.trained.nonzero()[0].tolist()))
    lines.append(Text.assemble(("  trained: ", "dim"), trained))
    lines += [Text(f"  not found: {x.role} {x.words!r}", style="red") for x in record.unmatched]
    return lines


def _tokens(record: ShownRecord) -> Text:
    styles = ["" for _ in record.tokens]
    for number, dependence in reversed(list(enumerate(record.dependences))):
        for token in (*dependence.causes, *dependence.effects):
            styles[token] = COLOURS[number % len(COLOURS)]
    line = Text()
    for token, colour, trained in zip(record.tokens, styles, record.trained, strict=True):
        line.append(token, style=f"{TRAINED if trained else ''} {colour}".strip())
    return line
