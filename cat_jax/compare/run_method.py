"""One method of a comparison, for one seed: trained, evaluated and forgotten."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
from etils import epath

from cat_jax.compare.attention_example import AttentionExample
from cat_jax.compare.comparison import Comparison, MethodRun
from cat_jax.compare.methods import Method
from cat_jax.compare.setup import ComparisonSetup
from cat_jax.compare.untrained import load_untrained
from cat_jax.config import LoraConfig, Optimizer, Training
from cat_jax.distributed import sync_errors
from cat_jax.evaluation.results import Evaluation
from cat_jax.evaluation.suite import evaluate_test_sets
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import VALIDATION
from cat_jax.train.fit import validation_evaluators
from cat_jax.train.metrics import Callback
from cat_jax.train.remains import check_run
from cat_jax.train.result import RunResult
from cat_jax.train.run import Evaluator, run_training
from cat_jax.train.setup import setup_training
from cat_jax.train.training_data import align_validation
from cat_jax.train.workdir import run_settings
from pallas_kernels import Selection

logger = logging.getLogger(__name__)

Progress = Callable[[str, int], AbstractContextManager[Callback | None]]
"""Maps the title and steps of a run to a context whose callback shows its progress."""


@dataclass(frozen=True)
class RunOptions:
    """What all runs of a comparison share; see ``compare``."""

    train: Training
    optimizer: Optimizer
    lora: LoraConfig | None
    workdir: epath.Path | None
    resume: bool
    progress: Progress


def run_method(
    comparison: Comparison,
    setup: ComparisonSetup,
    method: Method,
    options: RunOptions,
) -> None:
    """Train (unless the method does not), evaluate and forget one method."""
    phase, seed, title = comparison.phases.phase, setup.seed, f"{method.title}, seed {setup.seed}"
    is_first_seed = not comparison.runs or comparison.runs[0].seed == seed
    if method.trains:
        result: LanguageModel = _train(comparison, setup, method, options)
    else:
        with sync_errors(), phase("preparation"), options.progress(title, 0):
            result, attention = load_untrained(setup, method.name, options.train, options.lora)
        _note_attention(comparison, attention)
    with phase("evaluation"):
        found = evaluate_test_sets(
            result, setup.task, setup.tests[method.name], setup.interventions[method.name]
        )
    if is_first_seed and method.prompt is None:  # the figure shows one text
        with phase("figures"):
            _add_example(comparison, setup, method, result, found)
    run = MethodRun(method, seed, found)
    if isinstance(result, RunResult):
        summary = result.summary()
        comparison.seconds += summary["seconds"]
        seconds, selected = summary["seconds_per_step"], result.selected
        run = MethodRun(method, seed, found, result.history, seconds, selected)
        if selected is not None:
            comparison.note(f"{title}: {selected}")
    comparison.runs.append(run)


def _train(
    comparison: Comparison,
    setup: ComparisonSetup,
    method: Method,
    options: RunOptions,
) -> RunResult:
    """Train a method, or read what a finished run left."""
    started, phase = time.perf_counter(), comparison.phases.phase
    train, optimizer, regularizer = options.train, options.optimizer, method.regularizer
    guidance, data, seed = setup.guidance[method.name], setup.data[method.name], setup.seed
    is_first_seed = not comparison.runs or comparison.runs[0].seed == seed
    folder = None if options.workdir is None else options.workdir / f"seed-{seed}" / method.name
    settings = run_settings(
        setup.start,
        guidance=guidance,
        regularizer=regularizer,
        optimizer=optimizer,
        train=train,
        seed=seed,
        provenance={"data": setup.task},
    )
    with sync_errors(), phase("preparation"):
        if folder is not None and check_run(folder, settings, train, resume=True):
            logger.info("%s is a finished run; it is evaluated, not trained", folder)
        training = setup_training(
            setup.start,
            setup.tokenizer,
            train,
            guidance=guidance,
            regularizer=regularizer,
            lora=options.lora,
            seed=seed,
        )
        has_validation = VALIDATION in setup.task.splits
        records = setup.task.records(VALIDATION, seed) if has_validation else []
        records = method.asked(setup.task, seed, records)
        validation = align_validation(records, setup.tokenizer, train, seed)
        evaluators: list[Evaluator] = [
            phase("evaluation")(evaluator)
            for evaluator in (
                *validation_evaluators(training, validation, train, guidance),
                partial(setup.eval_metrics, method.name),
            )
        ]
    if not any(run.method.trains for run in comparison.runs):
        _note_attention(comparison, training.attention)
        comparison.note(f"training data: {data}")
        for duplicates in setup.duplicates:
            comparison.note(str(duplicates))
    if guidance is not None and is_first_seed:
        comparison.note(f"annotations for {method.title}: {data.stats}")
    title = f"{method.title}, seed {seed}"
    steps = train.for_sequences(len(data.examples)).steps
    with options.progress(title, steps) as show, phase("training"):
        return run_training(
            training,
            data,
            guidance=guidance,
            regularizer=regularizer,
            train=train,
            optimizer=optimizer,
            validation=validation,
            seed=seed,
            evaluators=evaluators,
            callbacks=[] if show is None else [show],
            workdir=folder,
            resume=options.resume or bool(comparison.runs),
            settings=settings,
            started=started,
        )


def _note_attention(comparison: Comparison, kind: Selection) -> None:
    """Note which attention runs, once; longer prompts may need another one."""
    sentence = f"attention: {kind.implementation} ({kind.reason})"
    if sentence not in comparison.notes:
        comparison.note(sentence)


def _add_example(
    comparison: Comparison,
    setup: ComparisonSetup,
    method: Method,
    result: LanguageModel,
    found: Evaluation,
) -> None:
    """Keep what the attention figure needs; a figure must not cost the report."""
    tests = setup.tests[method.name]
    name = (setup.curve_sets or list(tests))[-1]
    if comparison.example is None:
        comparison.example = AttentionExample(setup.task, tests[name], setup.tokenizer)
    try:
        comparison.example.add(method.title, result, np.array(found[name].right))
    except Exception as error:
        logger.debug("attention of %s", method.title, exc_info=True)
        comparison.note(f"warning: no attention figure for {method.title}: {error}")
