"""What a method of a comparison is."""

from collections.abc import Callable
from dataclasses import dataclass

from cat_jax.config import Guidance
from cat_jax.data.conversations import TrainingRecord
from cat_jax.tasks.base import TRAIN, Task


def training_records(task: Task, seed: int) -> list[TrainingRecord]:
    """Return the task's training records as they are."""
    return task.records(TRAIN, seed)


@dataclass(frozen=True)
class Method:
    """One way to train, in a file of its own.

    Attributes:
        name: Name in reports and folders.
        title: Name for readers.
        guidance: Maps the comparison's guidance to the method's own; None trains on next tokens
            alone.
        records: Returns the training records of a task and seed.
    """

    name: str
    title: str
    guidance: Callable[[Guidance | None], Guidance | None]
    records: Callable[[Task, int], list[TrainingRecord]] = training_records
