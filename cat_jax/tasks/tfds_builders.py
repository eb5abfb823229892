"""Builders of tensorflow-datasets: the generated tasks, and annotated files of your own.

Needs the extra ``tfds``. Files are ArrayRecord, and neither building nor reading needs TensorFlow;
the command ``tfds build`` does (docs/data.md).

``Stg`` (``stg/s``, ``stg/m``, ``stg/l``), ``StgH`` (``stg_h``), ``Scm`` (``scm/draw_0`` to
``scm/draw_19``, the causal models of benchmarks/scm.md) and ``AnnotatedJsonl``
(``annotated_jsonl/records``, ``annotated_jsonl/conversations``).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.formats import STRUCTURED, parse_items
from cat_jax.data.readers import ENDINGS, open_items, source_name
from cat_jax.data.sources import training_record_fields
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task
from cat_jax.tasks.registry import find_task
from cat_jax.tasks.scm import random_scm

RECORD = ("input", "target", "important")
CONVERSATION = ("messages", "tools", "chat_template_kwargs")
EMPTY = {"important": [], "tools": [], "chat_template_kwargs": {}}
"""What stands for a field that a record does not have."""


class _Builder(tfds.core.GeneratorBasedBuilder):
    """Records as fields of text, those that hold lists and objects as JSON."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, file_format: Any = None, **options: Any):
        super().__init__(file_format=file_format or "array_record", **options)

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the features."""
        return RECORD

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict({n: tfds.features.Text() for n in self.fields}),
            disable_shuffling=True,  # the order is part of a task's records
        )

    def _generate_examples(
        self, records: Iterator[TrainingRecord]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for number, record in enumerate(records):
            yield number, text_fields(training_record_fields(record), self.fields)


class _TaskBuilder(_Builder):
    @property
    def task(self) -> Task:
        """Return the task whose records are written."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
        task = self.task
        return {
            split: self._generate_examples(task.iter_records(split, seed=0))
            for split in task.splits
        }


class Stg(_TaskBuilder):
    """The Spurious Token Game (Han et al., EMNLP 2025) in its sizes and annotations, seed 0."""

    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=size) for size in "sml"]

    @property
    def task(self) -> Task:
        """Return the game of the configuration's size."""
        return find_task(f"stg_{self.builder_config.name}")


class StgH(_TaskBuilder):
    """STG_H, the harder Spurious Token Game (Han et al., EMNLP 2025), seed 0."""

    @property
    def task(self) -> Task:
        """Return the game."""
        return find_task("stg_h")


class Scm(_TaskBuilder):
    """Records drawn from a random structural causal model, seed 0."""

    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=f"draw_{n}") for n in range(20)]

    @property
    def task(self) -> Task:
        """Return the model of the configuration's number."""
        return random_scm(int(self.builder_config.name.removeprefix("draw_")))


class AnnotatedJsonl(_Builder):
    """Annotated records of your own: each data file of the manual folder is a split."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put train.jsonl and others there, files that end in {ENDINGS}."
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="records"),
        tfds.core.BuilderConfig(name="conversations"),
    ]

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the features."""
        return RECORD if self.builder_config.name == "records" else CONVERSATION

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
        files = sorted(path for path in dl_manager.manual_dir.iterdir() if path.is_file())
        return {
            source_name(str(path)): self._generate_examples(parse_items(open_items(str(path))))
            for path in files
        }


def text_fields(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Return the fields of a record as text, those that hold lists and objects as JSON.

    Raises:
        InputError: The record has other fields.
    """
    if not fields.keys() <= {*names}:
        raise InputError(
            f"a record with {', '.join(fields)} where there are {', '.join(names)}; conversations "
            "are annotated_jsonl/conversations, all others annotated_jsonl/records"
        )
    whole = {name: EMPTY[name] for name in names if name in EMPTY} | dict(fields)
    return {n: json.dumps(x) if n in STRUCTURED else x for n, x in whole.items()}
