"""Plain fine-tuning and causal attention tuning, side by side from the same start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cat_jax.config import PUBLISHED, Experiment, GeneratedData, Guidance, PretrainedLora
from cat_jax.data.alignment import Coverage, Example, align_records
from cat_jax.data.packing import filled, pack_examples
from cat_jax.data.pipeline import training_batches
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation import answers, causal_mass, changed_answers, exact_match
from cat_jax.losses.schedules import guidance_weight
from cat_jax.models import CausalLM, init_lora
from cat_jax.sharding import HEADS, make_mesh
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.evaluations import verdict
from cat_jax.train.loop import train
from cat_jax.train.metrics import MetricsLog, read_metrics
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, TrainState, new_state
from cat_jax.train.step import make_train_step
from experiments.handover import hand_over
from experiments.model_source import make_model, resolve_attention
from experiments.run_folder import settings
from experiments.splits import Splits, as_published, intervened, load_splits
from pallas_kernels import Choice, Partition

CURVE = ("iid", "ood", "causal_mass")
"""What is measured for the training curves."""
CURVE_ROWS = 200
"""Rows of each test set behind a point of the training curves; the report uses all."""

Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Method:
    """One way to train: its name in reports, its objective, and its training rows."""

    name: str
    guidance: Guidance | None
    examples: list[Example]
    coverage: Coverage

    @property
    def rows(self) -> str:
        """How many rows the records make, and how full they are."""
        return (
            f"{self.coverage.records} records in {len(self.examples)} rows of "
            f"{max(len(row.tokens) for row in self.examples)} tokens, of which "
            f"{filled(self.examples):.1%} are no padding"
        )


@dataclass(frozen=True)
class TestSet:
    """Rows to answer, aligned, with the right answers."""

    examples: list[Example]
    targets: list[str]


@dataclass(frozen=True)
class Bench:
    """What the methods of one seed share.

    ``params`` are what training starts from: of the model, or adapters if there is a ``base``.
    """

    config: Experiment
    seed: int
    folder: Path
    tokenizer: PreTrainedTokenizerBase
    model: CausalLM
    attention: Choice
    params: Any
    base: FrozenBase | None
    splits: Splits
    tests: dict[str, TestSet]
    mesh: Mesh


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
    splits = load_splits(config.data, seed)
    texts = (row.text for row in splits.train)
    mesh = make_mesh(config.train.mesh, config.train.batch_size, config.train.accumulate)
    attention = resolve_attention(config.model, config.train.max_length)
    tokenizer, model, params = make_model(config.model, texts, seed, attention.implementation, mesh)
    check_settings(config, tokenizer, model)
    tests = {
        name: make_test_set(name, rows, tokenizer, config) for name, rows in splits.tests.items()
    }
    # Test rows need not divide among the devices, so each computes all of them.
    model = model.clone(partition=Partition(mesh, heads=HEADS))
    base = None
    if isinstance(config.model, PretrainedLora):
        lora = config.model.lora
        base = FrozenBase(params, lora, seed)
        params = init_lora(jax.random.key(seed), model.config, lora)
    return Bench(
        config, seed, folder, tokenizer, model, attention, params, base, splits, tests, mesh
    )


def check_settings(config: Experiment, tokenizer: PreTrainedTokenizerBase, model: CausalLM) -> None:
    """Refuses settings that cannot be honoured.

    Raises:
        InputError: rows longer than the model's positions, layers that it does not have, or a
            best value that is not measured.
    """
    if config.train.best not in (None, *CURVE):
        raise InputError(
            f"train.best is {config.train.best!r}, but what is measured while training is "
            f"{', '.join(CURVE)}"
        )
    if config.train.max_length > tokenizer.model_max_length:
        raise InputError(
            f"train.max_length is {config.train.max_length}, but the model reads at most "
            f"{tokenizer.model_max_length} tokens"
        )
    wrong = [n for n in config.guidance.layers or () if not 0 <= n < model.config.num_layers]
    if wrong:
        raise InputError(
            f"guidance.layers names layer {wrong[0]}, but the model has layers 0 to "
            f"{model.config.num_layers - 1}"
        )


def make_test_set(
    name: str, rows: Sequence[Record], tokenizer: PreTrainedTokenizerBase, config: Experiment
) -> TestSet:
    """Aligns test rows.

    Raises:
        InputError: a row is too long or has a word that the tokenizer does not know; leaving it
            out would give the accuracy of other rows.
    """
    examples, coverage = align(rows, tokenizer, config)
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


def align(
    rows: Sequence[Record], tokenizer: PreTrainedTokenizerBase, config: Experiment
) -> tuple[list[Example], Coverage]:
    """``align_records`` as the experiment asks."""
    return align_records(
        rows, tokenizer, max_length=config.train.max_length, match=config.train.match
    )


def methods(bench: Bench) -> list[Method]:
    """The baseline, CAT, and on request CAT as published, all on the same texts.

    Raises:
        InputError: too few training rows fit, or none of them is annotated.
    """
    examples, coverage = align_training(bench, bench.splits.train)
    chosen = [
        Method("baseline", None, examples, coverage),
        Method("cat", bench.config.guidance, examples, coverage),
    ]
    if bench.config.published:
        rows = load_splits(as_published(bench.config.data), bench.seed).train
        chosen.append(Method("cat_published", PUBLISHED, *align_training(bench, rows)))
    return chosen


def align_training(bench: Bench, rows: Sequence[Record]) -> tuple[list[Example], Coverage]:
    """Aligns (and packs) training rows and checks that there is something to train on."""
    config = bench.config.train
    examples, coverage = align(rows, bench.tokenizer, bench.config)
    packed = ""
    if config.pack:
        examples = pack_examples(examples, length=config.max_length, seed=bench.seed)
        packed = f" and are packed into {len(examples)}"
    if len(examples) < config.batch_size:
        raise InputError(
            f"{coverage.records} of {len(rows)} training rows fit in {config.max_length} tokens"
            f"{packed}, fewer than one batch of {config.batch_size}; add rows, "
            f"{'lower' if packed else 'raise'} train.max_length or lower train.batch_size"
        )
    if coverage.records_without_mask == coverage.records:
        raise InputError(
            "no training row has an annotation whose words stand in its text; CAT needs the field "
            "'important'"
        )
    return examples, coverage


def method_folder(folder: Path, seed: int, method: str) -> Path:
    """Where one run keeps its checkpoints and metrics, and leaves the trained model."""
    return folder / f"seed-{seed}" / method


def run_method(bench: Bench, method: Method, progress: Progress) -> Outcome:
    """Trains (or resumes, or only reloads) one method and scores it."""
    folder = method_folder(bench.folder, bench.seed, method.name)
    state = train_method(bench, method, folder, progress)
    hand_over(folder, bench.config.model, bench.model.config, bench.tokenizer, state.params)
    params = complete_params(bench, state.params)
    note = verdict(read_metrics(folder / "metrics.jsonl"), bench.config.train)
    return Outcome(method.name, bench.seed, score(bench, params, folder), params, note)


def complete_params(bench: Bench, trained: Any) -> Any:
    """Parameters of the model, from what is trained of them."""
    return trained if bench.base is None else bench.base.attach(trained)


def train_method(bench: Bench, method: Method, folder: Path, progress: Progress) -> TrainState:
    """From the newest checkpoint, if there is one, to the last step; returns the chosen state."""
    config = bench.config.train
    optimizer = make_optimizer(bench.config.optimizer, config.steps)
    batches = training_batches(method.examples, batch_size=config.batch_size, seed=bench.seed)
    gamma = None
    if method.guidance is not None:
        gamma = guidance_weight(
            method.guidance.schedule,
            method.guidance.weight,
            rate=method.guidance.rate,
            steps=config.steps,
            steps_per_epoch=len(method.examples) // config.batch_size,
        )
    checkpoints = Checkpoints(folder / "checkpoints", settings(bench.config), keep=config.keep)
    state = new_state(bench.params, optimizer, bench.mesh)
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state, batches)
    log = MetricsLog(folder, resume_step=int(state.step))
    try:
        return train(
            state,
            make_train_step(
                bench.model,
                optimizer,
                bench.mesh,
                method.guidance,
                gamma,
                bench.base,
                accumulate=config.accumulate,
                loss_chunk=config.loss_chunk,
            ),
            batches,
            config=config,
            checkpoints=checkpoints,
            log=log,
            evaluate=lambda trained: curve_point(bench, complete_params(bench, trained)),
            report=progress,
        )
    finally:
        log.close()
        checkpoints.close()


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
