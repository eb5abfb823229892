"""What is to be reviewed: annotated records, what assistants disagree on, and rejects."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from cat_jax.annotation.agreement import edges_of
from cat_jax.annotation.annotate import Annotated, Outcome
from cat_jax.annotation.checks import InvalidReply
from cat_jax.annotation.opinions import Edge, Place, parse_reply
from cat_jax.annotation.output import outcome_fields
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.reply import Words
from cat_jax.data.matching import find_span
from cat_jax.data.records import Record, Span, parse_record
from cat_jax.data.sources import read_records, training_record_fields
from cat_jax.errors import InputError

OWN = ("input", "target", "important")
OF_REJECTS = ("reasons", "reply")


@dataclass(frozen=True)
class ReviewItem:
    """A record to review.

    Attributes:
        record: The record.
        edges: Places of effects and causes that are annotated.
        kinds: Kind of each place, as far as known.
        shares: Of each edge that an assistant named, the share of the opinions that name it.
        reasons: Why it was rejected; empty if it was not.
        reply: What the assistant said of a rejected one.
        fields: Further fields of its line, which a review keeps.
    """

    record: Record
    edges: frozenset[Edge] = frozenset()
    kinds: Mapping[Place, str] = field(default_factory=dict)
    shares: Mapping[Edge, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    reply: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def agreement(self) -> float:
        """Return the mean share of the edges; 1 with one opinion."""
        return sum(self.shares.values()) / len(self.shares) if self.shares else 1.0

    @property
    def text(self) -> str:
        """Return the text of the record."""
        return self.record.text


def read_review_items(source: str | PathLike[str]) -> list[ReviewItem]:
    """Read annotated records, and beside them those that were rejected.

    Args:
        source: File that ``experiments.annotate`` wrote, whose rejects lie in
            ``SOURCE.rejects.jsonl``; or any source of records (docs/data.md).

    Raises:
        InputError: It cannot be read, or a record is a conversation.
    """
    path = Path(source)
    if path.suffix != ".jsonl" or not path.is_file():
        return list(as_items(read_records(source)))
    rejects = path.with_name(f"{path.name}.rejects.jsonl")
    files = [path, *([rejects] if rejects.is_file() else [])]
    return [item for file in files for item in _read_lines(file)]


def as_items(given: Iterable[Any] | Annotated, prior: Prior | None = None) -> Iterator[ReviewItem]:
    """Yield what is to be reviewed of records, outcomes or items.

    Args:
        given: Records, outcomes, items, or what ``annotate`` returns.
        prior: What outcomes were annotated by.

    Raises:
        InputError: Something is none of these.
    """
    for one in given.outcomes if isinstance(given, Annotated) else given:
        if isinstance(one, ReviewItem):
            yield one
        elif isinstance(one, Outcome):
            assert prior is not None
            yield _item(outcome_fields(one, prior), one.record)
        elif isinstance(one, Record):
            yield _item(training_record_fields(one), one)
        else:
            where = getattr(one, "where", "") or "a record"
            raise InputError(f"{where}: prompts and answers are reviewed, no conversations")


def _read_lines(path: Path) -> Iterator[ReviewItem]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                fields = json.loads(line)
            except ValueError:
                raise InputError(f"{where}: is no JSON; correct or remove the line") from None
            if not isinstance(fields, dict) or "input" not in fields:
                raise InputError(f"{where}: prompts and answers are reviewed; it has no 'input'")
            yield _item(fields, parse_record(fields, where))


def _item(fields: Mapping[str, Any], record: Record) -> ReviewItem:
    about = fields.get("annotation") or {}
    reply = str(fields.get("reply", ""))
    edges = edges_of(record)
    kinds = {(x["start"], x["stop"]): x["kind"] for x in about.get("kinds", ())}
    if "reasons" in fields:
        edges, kinds = _guessed(reply, record)
    shares = {
        (tuple(x["effect"]), tuple(x["cause"])): x["share"]
        for x in (about.get("agreement") or {}).get("edges", ())
    }
    return ReviewItem(
        record,
        edges,
        kinds,
        shares,
        tuple(fields.get("reasons", ())),
        reply,
        {name: value for name, value in fields.items() if name not in OWN + OF_REJECTS},
    )


def _guessed(reply: str, record: Record) -> tuple[frozenset[Edge], dict[Place, str]]:
    """Return what of a rejected reply stands in the text."""
    edges: set[Edge] = set()
    kinds: dict[Place, str] = {}
    try:
        said = parse_reply(reply)
    except InvalidReply:
        return frozenset(), kinds
    for dependency in said.annotations:
        effect = _first(dependency.effect, record, at_end=True)
        for words in dependency.causes:
            cause = _first(words, record)
            if effect and cause and cause[1] <= effect[0]:
                edges.add((effect, cause))
                kinds |= {effect: dependency.effect.kind, cause: words.kind}
    return frozenset(edges), kinds


def _first(words: Words, record: Record, *, at_end: bool = False) -> Place | None:
    """Return the first place of words, or the last one in the answer if they stand there."""
    found = find_span(record.text, Span(words.text))
    if not found:
        return None
    place = found[-1] if at_end and found[-1].stop > len(record.input) else found[0]
    return place.start, place.stop
