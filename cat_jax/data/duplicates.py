"""Records of a test set that also stand in the training data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from cat_jax.data.conversations import TRAINED_ROLE, Conversation, TrainingRecord


@dataclass(frozen=True)
class Duplicates:
    """How many records of a set ask what the training data asks.

    Attributes:
        name: Name of the set.
        count: Its records whose question also stands in the training data.
        records: All its records.
        first: Places of the first of them, in the set and in the training data; None without any.
    """

    name: str
    count: int
    records: int
    first: tuple[str, str] | None = None

    def __str__(self) -> str:
        found = f"{self.count} of {self.records} records of {self.name}"
        if self.first is None:
            return f"{found} also stand in the training data"
        return (
            f"{found} also stand in the training data, the first as {self.first[0]} and "
            f"{self.first[1]}"
        )


def find_duplicates(
    training: Iterable[TrainingRecord], others: Mapping[str, Iterable[TrainingRecord]]
) -> dict[str, Duplicates]:
    """Count the records of other sets whose question also stands in the training data.

    The question is what stands before the answer: the input of a record (of one without input, the
    text), of a conversation the messages before the assistant's last one. White space does not
    count.

    Args:
        training: Training records.
        others: Records to look for, by the name of their set.

    Returns:
        What was found, by the names of the sets.
    """
    places: dict[bytes, str] = {}
    for where, key in _questions(training):
        places.setdefault(key, where)
    return {name: _look_up(name, records, places) for name, records in others.items()}


def _look_up(
    name: str, records: Iterable[TrainingRecord], places: Mapping[bytes, str]
) -> Duplicates:
    questions = list(_questions(records))
    found = [(where, places[key]) for where, key in questions if key in places]
    return Duplicates(name, len(found), len(questions), found[0] if found else None)


def _questions(records: Iterable[TrainingRecord]) -> Iterator[tuple[str, bytes]]:
    """Yield the place and a digest of the question of every record."""
    for number, record in enumerate(records, 1):
        parts = [part for text in _question(record) for part in (*text.split(), "\n")]
        yield _place(record, number), sha256(" ".join(parts).encode()).digest()


def _place(record: TrainingRecord, number: int) -> str:
    is_named = record.where not in ("", "a conversation")
    return record.where if is_named else f"record {number}"


def _question(record: TrainingRecord) -> list[str]:
    if not isinstance(record, Conversation):
        return [record.input] if record.input.strip() else [record.target]
    last = max(n for n, message in enumerate(record.messages) if message.role == TRAINED_ROLE)
    return [text for m in record.messages[:last] for text in (m.role, m.content)]
