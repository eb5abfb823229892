"""Training as a function: records in, a trained model out."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from etils import epath

from cat_jax.config import Guidance, LoraConfig, Optimizer, Training
from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.packing import pack_examples
from cat_jax.data.sources import read_records
from cat_jax.distributed import sync_errors
from cat_jax.errors import InputError
from cat_jax.evaluation.validation import make_validation
from cat_jax.train.metrics import Callback
from cat_jax.train.result import RunResult
from cat_jax.train.run import Evaluator, run_training
from cat_jax.train.setup import (
    Start,
    TrainSetup,
    make_tokenizer,
    resolve_start,
    setup_training,
)
from cat_jax.train.tracker import check_tracker
from cat_jax.train.training_data import TrainingData, align_or_take, align_training
from cat_jax.train.workdir import (
    check_workdir,
    json_settings,
    start_settings,
    training_settings,
)

logger = logging.getLogger(__name__)

Records = str | PathLike[str] | Iterable[Any]
"""Records or examples, or what ``cat_jax.data.sources.read_records`` reads."""


def fit(
    model: Start | str | PathLike[str],
    records: Records,
    *,
    guidance: Guidance | None = None,
    train: Training | None = None,
    optimizer: Optimizer | None = None,
    validation: Records = (),
    lora: LoraConfig | None = None,
    seed: int = 0,
    evaluators: Sequence[Evaluator] = (),
    callbacks: Sequence[Callback] = (),
    workdir: str | PathLike[str] | None = None,
    resume: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train a model on records, with guided attention where they are annotated.

    Nothing is written unless there is a ``workdir``. Validation and evaluators run before the
    first step, so that there is something to compare with, then every ``train.eval_every`` steps
    and after the last.

    Args:
        model: Folder or hub name of a pretrained model, a ``Pretrained``, ``PretrainedLora`` or
            ``Scratch``, or a model in memory (a ``LanguageModel``, such as an earlier result),
            which stays as it is; adapters that it has are merged first.
        records: Training records: a JSONL file, dicts, ``Record`` or ``Conversation`` objects, or
            aligned examples (not for ``Scratch``).
        guidance: Second objective; None trains on next tokens alone.
        train: Training loop.
        optimizer: Optimizer.
        validation: Records whose loss is measured: ``next_token_loss``, ``token_accuracy``,
            ``perplexity``, and of annotated ones ``causal_mass`` and ``guidance_loss``.
        lora: Train low-rank adapters instead of all parameters.
        seed: Seed of initialisation and data order.
        evaluators: Further metrics: functions of the ``RunResult`` so far.
        callbacks: Functions called with every new line of the history.
        workdir: Folder or ``gs://`` path for checkpoints, logs and the exported model.
        resume: Continue the run that the workdir holds, if it was made with the same settings and
            data; False refuses a workdir that is not empty.
        provenance: JSON values to note with the settings, such as where the records are from.

    Returns:
        The trained model with its history; with ``train.best`` the parameters of the best
        evaluation.

    Raises:
        InputError: Bad settings, data or model; nothing is written then.
        Diverged: The loss or gradient is no longer finite.
        Interrupted: SIGINT or SIGTERM came; with a workdir the state was saved.
        SaveFailed: A checkpoint or log could not be written.
    """
    started = time.perf_counter()
    train, optimizer = train or Training(), optimizer or Optimizer()
    with sync_errors():
        check_tracker(train.wandb_project)
        start = resolve_start(model, lora)
        path = None if workdir is None else epath.Path(workdir)
        settings = json_settings(
            **(provenance or {}),
            model=start_settings(start),
            guidance=guidance,
            optimizer=optimizer,
            train=training_settings(train),
            seed=seed,
        )
        if path is not None:
            check_workdir(path, settings, resume=resume)
        items = _read(records)
        tokenizer = make_tokenizer(start, items)
        data = align_training(items, tokenizer, train, seed, guided=guidance is not None)
        setup = setup_training(start, tokenizer, train, guidance=guidance, lora=lora, seed=seed)
        logger.info("attention: %s (%s)", setup.attention.implementation, setup.attention.reason)
        logger.info("training data: %s; %d too long", data, data.stats.too_long)
        if guidance is not None:
            logger.info("annotations: %s", data.stats)
        checks = [
            *validation_evaluators(setup, _read(validation), train, guidance, seed),
            *evaluators,
        ]
    return run_training(
        setup,
        data,
        guidance=guidance,
        train=train,
        optimizer=optimizer,
        seed=seed,
        evaluators=checks,
        callbacks=callbacks,
        workdir=path,
        resume=resume,
        settings=settings,
        started=started,
    )


def _read(records: Records) -> list[TrainingRecord] | list[Example]:
    if isinstance(records, str | PathLike):
        return read_records(str(records))
    items = list(records)
    if not items or isinstance(items[0], Example):
        return items
    return read_records(items)


def validation_evaluators(
    setup: TrainSetup,
    records: Sequence[TrainingRecord] | Sequence[Example],
    train: Training,
    guidance: Guidance | None,
    seed: int,
) -> list[Evaluator]:
    """Return the evaluator of validation records, none if there are none.

    Raises:
        InputError: No validation record is short enough.
    """
    if not records:
        return []
    examples, stats = align_or_take(records, setup.tokenizer, train)
    if not examples:
        raise InputError(
            f"none of {len(records)} validation records fits in {train.max_length} tokens; raise "
            "train.max_length"
        )
    if train.pack:
        examples = pack_examples(examples, length=train.max_length, seed=seed)
    logger.info("validation data: %s; %d too long", TrainingData(examples, stats), stats.too_long)
    validate = make_validation(
        setup.model,
        examples,
        setup.mesh,
        guidance,
        batch_size=train.batch_size,
        loss_chunk=train.loss_chunk,
    )
    return [lambda result: validate(result.params)]
