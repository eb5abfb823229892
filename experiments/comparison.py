"""Plain fine-tuning and causal attention tuning, side by side from the same start."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.config import PUBLISHED, Experiment, GeneratedData, Guidance
from cat_jax.data.alignment import AlignmentStats, Example
from cat_jax.data.records import Record
from cat_jax.distributed import is_primary
from cat_jax.errors import InputError
from cat_jax.evaluation import answers, causal_mass, changed_answers, exact_match
from cat_jax.train.evaluations import verdict
from cat_jax.train.metrics import read_metrics
from cat_jax.train.state import TrainState
from experiments.handover import export_model
from experiments.progress import Report
from experiments.splits import Splits, as_published, intervened, load_splits
from experiments.training_run import (
    Start,
    align,
    align_training,
    check_best,
    make_start,
    run_training,
)

CURVE = ("iid", "ood", "causal_mass")
"""What is measured for the training curves."""
CURVE_ROWS = 200
"""Rows of each test set behind a point of the training curves; the report uses all."""


@dataclass(frozen=True)
class Method:
    """One way to train: its name in reports, its objective, and its training rows."""

    name: str
    guidance: Guidance | None
    examples: list[Example]
    coverage: AlignmentStats


@dataclass(frozen=True)
class TestSet:
    """Rows to answer, aligned, with the right answers."""

    examples: list[Example]
    targets: list[str]


@dataclass(frozen=True)
class Bench(Start):
    """What the methods of one seed share."""

    config: Experiment
    seed: int
    folder: Path
    splits: Splits
    tests: dict[str, TestSet]


@dataclass(frozen=True)
class Outcome:
    """A trained method: its scores by name and its parameters, adapters attached.

    ``note`` says which step they are of, if it is not the last.
    """

    method: str
    seed: int
    scores: dict[str, float]
    params: Any
    note: str | None = None


def make_bench(config: Experiment, seed: int, folder: Path) -> Bench:
    """Reads data and model; nothing is written.

    Raises:
        InputError: whatever is wrong with data, tokenizer or model.
    """
    check_best(config.train.best, CURVE)
    splits = load_splits(config.data, seed)
    start = make_start(config, splits.train, seed)
    tests = {
        name: make_test_set(name, rows, start.tokenizer, config)
        for name, rows in splits.tests.items()
    }
    return Bench(**vars(start), config=config, seed=seed, folder=folder, splits=splits, tests=tests)


def make_test_set(
    name: str, rows: Sequence[Record], tokenizer: PreTrainedTokenizerBase, config: Experiment
) -> TestSet:
    """Aligns test rows.

    Raises:
        InputError: a row is too long or has a word that the tokenizer does not know; leaving it
            out would give the accuracy of other rows.
    """
    examples, coverage = align(rows, tokenizer, config.train)
    if coverage.too_long:
        raise InputError(
            f"test set {name!r}: {coverage.too_long} of {len(rows)} rows are longer than "
            f"{config.train.max_length} tokens; raise train.max_length"
        )
    unknown = tokenizer.unk_token_id
    # A token that joins the end of the prompt to the answer counts as the answer's: look at one
    # token at least.
    prompts = (example.tokens[: max(1, example.target_mask.argmax())] for example in examples)
    count = 0 if unknown is None else sum(bool((prompt == unknown).any()) for prompt in prompts)
    if count:
        raise InputError(
            f"test set {name!r}: {count} of {len(rows)} prompts have words that the tokenizer "
            "does not know; use a pretrained model, or training rows with the same words"
        )
    return TestSet(examples, [row.target for row in rows])


def methods(bench: Bench) -> list[Method]:
    """The baseline, CAT, and on request CAT as published, all on the same texts.

    Raises:
        InputError: too few training rows fit, or none of them is annotated.
    """

    def aligned(rows: Sequence[Record]) -> tuple[list[Example], AlignmentStats]:
        return align_training(rows, bench.tokenizer, bench.config.train, bench.seed)

    examples, coverage = aligned(bench.splits.train)
    chosen = [
        Method("baseline", None, examples, coverage),
        Method("cat", bench.config.guidance, examples, coverage),
    ]
    if bench.config.published:
        rows = load_splits(as_published(bench.config.data), bench.seed).train
        chosen.append(Method("cat_published", PUBLISHED, *aligned(rows)))
    return chosen


def method_folder(folder: Path, seed: int, method: str) -> Path:
    """Where one run keeps its checkpoints and metrics, and leaves the trained model."""
    return folder / f"seed-{seed}" / method


def run_method(bench: Bench, method: Method, progress: Report) -> Outcome:
    """Trains (or resumes, or only reloads) one method and scores it."""
    folder = method_folder(bench.folder, bench.seed, method.name)
    state = train_method(bench, method, folder, progress)
    export_model(folder, bench.config.model, bench.model.config, bench.tokenizer, state.params)
    params = bench.complete_params(state.params)
    note = verdict(read_metrics(folder / "metrics.jsonl"), bench.config.train)
    return Outcome(method.name, bench.seed, score(bench, params, folder), params, note)


def train_method(bench: Bench, method: Method, folder: Path, progress: Report) -> TrainState:
    """From the newest checkpoint, if there is one, to the last step; returns the chosen state."""
    return run_training(
        bench.config,
        bench,
        method.examples,
        method.guidance,
        bench.seed,
        folder,
        evaluate=lambda params: curve_point(bench, params),
        report=progress,
    )


def curve_point(bench: Bench, params: Any) -> dict[str, float]:
    """Accuracy and causal mass on the first test rows, for the training curves."""
    point = {}
    for name in ("iid", "ood"):
        test = bench.tests[name]
        few = TestSet(test.examples[:CURVE_ROWS], test.targets[:CURVE_ROWS])
        point[name] = accuracy(bench, params, few)
    iid = bench.tests["iid"].examples[:CURVE_ROWS]
    return point | {"causal_mass": causal_mass(bench.model, params, iid)}


def accuracy(bench: Bench, params: Any, test: TestSet) -> float:
    """Exact match of greedy answers."""
    return exact_match(answers(bench.model, params, bench.tokenizer, test.examples), test.targets)


def score(bench: Bench, params: Any, folder: Path) -> dict[str, float]:
    """All that the report says of one trained method."""
    scores = {name: accuracy(bench, params, test) for name, test in bench.tests.items()}
    scores["causal_mass"] = causal_mass(bench.model, params, bench.tests["iid"].examples)
    if isinstance(bench.config.data, GeneratedData):
        scores["changed_answers"] = changed_by_intervention(bench, bench.config.data, params)
    if is_primary():  # it wrote the file
        lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
        scores["seconds_per_step"] = median(line["seconds_per_step"] for line in lines)
    return scores


def changed_by_intervention(bench: Bench, data: GeneratedData, params: Any) -> float:
    """Share of IID answers that change when only the spurious factors are redrawn."""
    rows = intervened(data, bench.splits.tests["iid"], bench.seed)
    after = make_test_set("iid, intervened", rows, bench.tokenizer, bench.config)
    given = [
        answers(bench.model, params, bench.tokenizer, test.examples)
        for test in (bench.tests["iid"], after)
    ]
    return changed_answers(*given)
