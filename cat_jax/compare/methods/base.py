"""What a method of a comparison is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cat_jax.config import Guidance, Regularizer
from cat_jax.data.conversations import TrainingRecord
from cat_jax.errors import InputError
from cat_jax.evaluation.testsets import Prompt
from cat_jax.tasks.base import TRAIN, Task

Control = Callable[[Task, Sequence[TrainingRecord], int], Sequence[TrainingRecord]]
"""Maps a task, its training records and a seed to other records (``cat_jax.tasks.controls``)."""


def training_records(task: Task, seed: int) -> list[TrainingRecord]:
    """Return the task's training records as they are."""
    return task.records(TRAIN, seed)


def published_records(task: Task, seed: int) -> list[TrainingRecord]:
    """Return the task's training records with the paper's annotation."""
    return task.as_published().records(TRAIN, seed)


PromptMaker = Callable[[Task, int], Prompt]
"""Maps a task and a seed to what rewrites the prompt of a record."""


@dataclass(frozen=True)
class Method:
    """One way to train, or to ask a model as it is, in a file of its own.

    Attributes:
        name: Name in reports and folders.
        title: Name for readers.
        guidance: Maps the comparison's guidance to the method's own; None trains on next tokens
            alone.
        records: Returns the training records of a task and seed.
        prompt: Returns, for a task and seed, what rewrites every record in training and in the
            test sets; None leaves them.
        regularizer: Another use of the annotation in training; None has none.
        trains: Whether the model is trained. One that is not is evaluated as it starts: its prompts
            may be as long as the model reads, and its answers end with their first line, unless
            right ones have several.
    """

    name: str
    title: str
    guidance: Callable[[Guidance | None], Guidance | None]
    records: Callable[[Task, int], Sequence[TrainingRecord]] = training_records
    prompt: PromptMaker | None = None
    regularizer: Regularizer | None = None
    trains: bool = True

    def training_records(
        self, task: Task, seed: int, own: Sequence[TrainingRecord]
    ) -> list[TrainingRecord]:
        """Return what is trained: the records with the method's prompt.

        Args:
            task: Whose records.
            seed: Seed of the records.
            own: The task's training records of that seed, which need not be made again.
        """
        records = own if self.records is training_records else self.records(task, seed)
        return self.asked(task, seed, records)

    def asked(
        self, task: Task, seed: int, records: Sequence[TrainingRecord]
    ) -> list[TrainingRecord]:
        """Return records with the method's prompt."""
        return list(records if self.prompt is None else map(self.prompt(task, seed), records))


def no_guidance(guidance: Guidance | None) -> None:
    """Return None: next tokens alone."""
    return


def needed_guidance(method: str) -> Callable[[Guidance | None], Guidance]:
    """Return a function that passes the comparison's guidance on, and refuses None."""

    def passed_on(guidance: Guidance | None) -> Guidance:
        if guidance is None:
            raise InputError(
                f"method {method} needs guidance; take a configuration that has some, or none"
            )
        return guidance

    return passed_on


def guided_control(name: str, title: str, control: Control) -> Method:
    """Return a method with the comparison's guidance on the records of a control."""
    return Method(name, title, needed_guidance(name), _transformed(control))


def plain_control(name: str, title: str, control: Control) -> Method:
    """Return a method without guidance on the records of a control."""
    return Method(name, title, no_guidance, _transformed(control))


def _transformed(control: Control) -> Callable[[Task, int], Sequence[TrainingRecord]]:
    return lambda task, seed: control(task, task.records(TRAIN, seed), seed)
