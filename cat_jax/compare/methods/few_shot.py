"""Rival: the model as it is, after a few training records with their answers.

In-context learning (Brown et al., "Language models are few-shot learners", NeurIPS 2020).
"""

from collections.abc import Callable

import numpy as np

from cat_jax.compare.methods.base import Method, no_guidance
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.base import TRAIN, Task
from cat_jax.tasks.controls.places import annotated, places, plain_records
from cat_jax.tasks.edits import replace_text

SHOTS = 8
BETWEEN = "\n\n"
"""Between two records; an answer is over where it begins."""


def few_shot_prompt(
    task: Task, seed: int, *, shots: int = SHOTS
) -> Callable[[TrainingRecord], Record]:
    """Return what puts training records before a prompt, the same ones before all prompts.

    Args:
        task: Task of the records.
        seed: Seed of the training records, and of which are shown in which order.
        shots: Number of records to show.

    Raises:
        InputError: There are fewer training records, a conversation among them, or one whose
            answer has several lines.
    """
    records = plain_records(task.records(TRAIN, seed), "few_shot")
    if len(records) < shots:
        raise InputError(
            f"few_shot shows {shots} training records, but task {task.name} has {len(records)}; "
            "add records"
        )
    chosen = np.random.default_rng(seed).permutation(len(records))[:shots]
    shown = [records[n] for n in chosen.tolist()]
    lines = next((record.target for record in shown if "\n" in record.target.strip()), None)
    if lines is not None:
        raise InputError(
            "few_shot: an answer ends with its line, but training records have answers of several "
            f"lines, such as {lines[:80]!r}; leave the method out"
        )
    before = "".join(record.text.rstrip() + BETWEEN for record in shown)

    def prompt(record: TrainingRecord) -> Record:
        (plain,) = plain_records([record], "few_shot")
        # Annotated words must not be searched for among the records before.
        return replace_text(annotated(plain, places(plain)), [(0, 0, before)])

    return prompt


FEW_SHOT = Method("few_shot", "few-shot", no_guidance, prompt=few_shot_prompt, trains=False)
