"""Training as a function: records in, a trained model out."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, cast

from etils import epath
from transformers import PreTrainedTokenizerBase

from cat_jax.collector import collector_paused
from cat_jax.config import Guidance, LoraConfig, Optimizer, Regularizer, Training
from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.duplicates import Duplicates
from cat_jax.data.shards import ShardedExamples, is_prepared
from cat_jax.data.sources import read_records
from cat_jax.distributed import sync_errors
from cat_jax.evaluation.validation import VALIDATION_METRICS, make_validation
from cat_jax.train.evaluations import check_best
from cat_jax.train.lock import check_free
from cat_jax.train.metrics import Callback
from cat_jax.train.remains import check_run
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
from cat_jax.train.training_data import (
    TrainingData,
    align_training,
    align_validation,
    fingerprints,
    some_duplicates,
)
from cat_jax.train.workdir import run_settings

logger = logging.getLogger(__name__)

Records = str | PathLike[str] | Iterable[Any]
"""Records or examples, what ``cat_jax.data.sources.read_records`` reads, or prepared shards."""


def fit(
    model: Start | str | PathLike[str],
    records: Records,
    *,
    guidance: Guidance | None = None,
    train: Training | None = None,
    optimizer: Optimizer | None = None,
    validation: Records = (),
    regularizer: Regularizer | None = None,
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
            which stays as it is; adapters that it has are merged first, into float32 where the
            kernel below is int8.
        records: Training records: what ``read_records`` reads (a file, a name on the hub, dicts),
            or aligned examples (not for ``Scratch``).
        guidance: Second objective; None trains on next tokens alone.
        train: Training loop.
        optimizer: Optimizer.
        validation: Records whose loss is measured: ``next_token_loss``, ``token_accuracy``,
            ``perplexity``, and of annotated ones ``causal_mass`` and ``guidance_loss``.
        regularizer: Another use of annotated words, beside or instead of guidance:
            ``InputGradient`` or ``AttentionDropout``.
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
        if not evaluators:  # or a model would be read first
            check_best(train.best, VALIDATION_METRICS if validation else ())
        plan = _plan(
            *(model, records, validation, guidance, regularizer, train, optimizer, lora, seed),
            *(workdir, resume, provenance),
        )
        if plan.finished:
            logger.info("%s is a finished run; nothing is trained", plan.workdir)
        for duplicates in () if plan.finished else plan.duplicates:
            logger.warning("%s", duplicates)
        setup = setup_training(
            plan.start,
            plan.tokenizer,
            train,
            guidance=guidance,
            regularizer=regularizer,
            lora=lora,
            seed=seed,
        )
        logger.info("attention: %s (%s)", setup.attention.implementation, setup.attention.reason)
        logger.info("training data: %s; %d too long", plan.data, plan.data.stats.too_long)
        if guidance is not None:
            logger.info("annotations: %s", plan.data.stats)
        checks = [
            *validation_evaluators(setup, plan.validation, train, guidance),
            *evaluators,
        ]
    return run_training(
        setup,
        plan.data,
        validation=plan.validation,
        guidance=guidance,
        regularizer=regularizer,
        train=train,
        optimizer=optimizer,
        seed=seed,
        evaluators=checks,
        callbacks=callbacks,
        workdir=plan.workdir,
        resume=resume,
        settings=plan.settings,
        started=started,
    )


def is_finished(
    model: Start | str | PathLike[str],
    records: Records,
    *,
    guidance: Guidance | None = None,
    train: Training | None = None,
    optimizer: Optimizer | None = None,
    validation: Records = (),
    regularizer: Regularizer | None = None,
    lora: LoraConfig | None = None,
    seed: int = 0,
    workdir: str | PathLike[str],
    provenance: Mapping[str, Any] | None = None,
) -> bool:
    """Tell whether ``fit`` with these arguments has finished; load no model and write nothing.

    Raises:
        InputError: The workdir holds another run, or parts of it are missing.
    """
    train, optimizer = replace(train or Training(), unmatched=None), optimizer or Optimizer()
    return _plan(
        *(model, records, validation, guidance, regularizer, train, optimizer, lora, seed),
        *(workdir, True, provenance),
    ).finished


@dataclass(frozen=True)
class _Plan:
    """What is known of a run before its model is loaded."""

    start: Start
    settings: dict[str, Any]
    workdir: epath.Path | None
    tokenizer: PreTrainedTokenizerBase
    data: TrainingData
    validation: TrainingData | None
    duplicates: list[Duplicates]
    finished: bool


@collector_paused()
def _plan(
    model: Start | str | PathLike[str],
    records: Records,
    validation: Records,
    guidance: Guidance | None,
    regularizer: Regularizer | None,
    train: Training,
    optimizer: Optimizer,
    lora: LoraConfig | None,
    seed: int,
    workdir: str | PathLike[str] | None,
    resume: bool,
    provenance: Mapping[str, Any] | None,
) -> _Plan:
    """Check the workdir, read the records, and check that they are those of the workdir."""
    start = resolve_start(model, lora)
    settings = run_settings(
        start,
        guidance=guidance,
        regularizer=regularizer,
        optimizer=optimizer,
        train=train,
        seed=seed,
        provenance=provenance,
    )
    path = None if workdir is None else epath.Path(workdir)
    if path is not None:
        check_free(path)
        check_run(path, settings, train, resume=resume)
    items, others = _read(records), _read(validation)
    duplicates = some_duplicates(items, {"validation": others})
    tokenizer = make_tokenizer(start, items)
    guided = guidance is not None or regularizer is not None
    data = align_training(items, tokenizer, train, seed, guided=guided)
    held_out = align_validation(others, tokenizer, train, seed)
    known = fingerprints(data, held_out)
    finished = path is not None and check_run(path, settings, train, known, resume=resume)
    return _Plan(start, settings, path, tokenizer, data, held_out, duplicates, finished)


def _read(records: Records) -> Sequence[TrainingRecord] | Sequence[Example]:
    if isinstance(records, ShardedExamples):
        return records
    if is_prepared(records):
        return ShardedExamples(cast("str", records))
    if isinstance(records, str | PathLike):
        return read_records(str(records))
    items = list(records)
    if not items or isinstance(items[0], Example):
        return items
    return read_records(items)


def validation_evaluators(
    setup: TrainSetup,
    validation: TrainingData | None,
    train: Training,
    guidance: Guidance | None,
) -> list[Evaluator]:
    """Return the evaluator of validation data, none if there is none."""
    if validation is None:
        return []
    logger.info("validation data: %s; %d too long", validation, validation.stats.too_long)
    validate = make_validation(
        setup.model,
        validation.examples,
        setup.mesh,
        guidance,
        batch_size=train.batch_size,
        logits_mib=train.logits_mib,
    )
    return [lambda result: validate(result.params)]
