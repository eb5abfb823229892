"""What every training run is made of: where it starts, its rows, and the run itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cat_jax.config import Experiment, Finetune, Guidance, PretrainedLora, Training
from cat_jax.data.alignment import AlignmentStats, Example, align_records
from cat_jax.data.batches import training_batches
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.packing import filled, pack_examples
from cat_jax.data.records import Record
from cat_jax.distributed import check_shared, ends_with_the_others, is_primary
from cat_jax.errors import InputError
from cat_jax.losses.schedules import guidance_weight
from cat_jax.models import CausalLM, init_lora
from cat_jax.sharding import HEAD_AXES, SEQUENCE_AXES, make_mesh, process_indices
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.loop import train
from cat_jax.train.metrics import MetricsLog
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, TrainState, new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import step_flops
from cat_jax.train.tracker import check_tracker, open_tracker
from experiments.environment import note_environment
from experiments.model_source import make_model, resolve_attention
from experiments.progress import Report
from experiments.run_folder import CONFIG_FILE, create_folder, settings
from pallas_kernels import Partition, Selection


@dataclass(frozen=True)
class Start:
    """What runs of one seed start from.

    ``params`` are what is trained: of the model, or adapters if there is a ``base``.
    """

    tokenizer: PreTrainedTokenizerBase
    model: CausalLM
    attention: Selection
    params: Any
    base: FrozenBase | None
    mesh: Mesh

    def complete_params(self, trained: Any) -> Any:
        """Parameters of the model, from what is trained of them."""
        return trained if self.base is None else self.base.attach(trained)


def make_start(config: Experiment | Finetune, rows: Sequence[TrainingRecord], seed: int) -> Start:
    """Reads the model, or makes one for the words of the rows; nothing is written.

    Raises:
        InputError: whatever is wrong with model, tokenizer or settings.
    """
    check_tracker(config.train.wandb_project)
    texts = (row.text for row in rows if isinstance(row, Record))
    mesh = make_mesh(config.train.mesh, config.train.batch_size, config.train.accumulate)
    attention = resolve_attention(config.model, config.train.max_length)
    tokenizer, model, params = make_model(config.model, texts, seed, attention.implementation, mesh)
    check_settings(config, tokenizer, model, mesh)
    base = None
    if isinstance(config.model, PretrainedLora):
        lora = config.model.lora
        base = FrozenBase(params, lora, seed)
        params = init_lora(jax.random.key(seed), model.config, lora)
    # Test rows need not divide among the devices, so each computes all of them.
    model = model.clone(partition=Partition(mesh, head_axes=HEAD_AXES))
    return Start(tokenizer, model, attention, params, base, mesh)


def check_settings(
    config: Experiment | Finetune, tokenizer: PreTrainedTokenizerBase, model: CausalLM, mesh: Mesh
) -> None:
    """Refuses settings that the model cannot honour.

    Raises:
        InputError: rows longer than the model's positions, layers that it does not have, or heads
            that do not divide among the devices.
    """
    by_heads = Partition(mesh).devices(HEAD_AXES + SEQUENCE_AXES)
    if model.config.num_heads % by_heads:
        raise InputError(
            f"train.mesh.tensor x train.mesh.context is {by_heads}, which does not divide the "
            f"{model.config.num_heads} heads of the model; choose a divisor"
        )
    if config.train.max_length > tokenizer.model_max_length:
        raise InputError(
            f"train.max_length is {config.train.max_length}, but the model reads at most "
            f"{tokenizer.model_max_length} tokens"
        )
    layers = () if config.guidance is None else config.guidance.layers or ()
    wrong = [n for n in layers if not 0 <= n < model.config.num_layers]
    if wrong:
        raise InputError(
            f"guidance.layers names layer {wrong[0]}, but the model has layers 0 to "
            f"{model.config.num_layers - 1}"
        )


def check_best(best: str | None, measured: Sequence[str]) -> None:
    """Raises InputError if parameters are to be chosen by a value that nothing measures."""
    if best not in (None, *measured):
        raise InputError(
            f"train.best is {best!r}, but what is measured while training is "
            f"{', '.join(measured) or 'nothing'}"
        )


def align(
    rows: Sequence[TrainingRecord], tokenizer: PreTrainedTokenizerBase, config: Training
) -> tuple[list[Example], AlignmentStats]:
    """``align_records`` as the configuration asks."""
    return align_records(rows, tokenizer, max_length=config.max_length, match=config.match)


def align_training(
    rows: Sequence[TrainingRecord],
    tokenizer: PreTrainedTokenizerBase,
    config: Training,
    seed: int,
    *,
    guided: bool = True,
) -> tuple[list[Example], AlignmentStats]:
    """Aligns (and packs) training rows and checks that there is something to train on.

    Raises:
        InputError: too few rows fit, or none is annotated although training is ``guided``.
    """
    examples, coverage = align(rows, tokenizer, config)
    packed = ""
    if config.pack:
        examples = pack_examples(examples, length=config.max_length, seed=seed)
        packed = f" and are packed into {len(examples)}"
    if len(examples) < config.batch_size:
        raise InputError(
            f"{coverage.records} of {len(rows)} training rows fit in {config.max_length} tokens"
            f"{packed}, fewer than one batch of {config.batch_size}; add rows, "
            f"{'lower' if packed else 'raise'} train.max_length or lower train.batch_size"
        )
    if guided and coverage.records_without_mask == coverage.records:
        raise InputError(
            "no training row has an annotation whose words stand in its text; CAT needs the field "
            "'important'"
        )
    return examples, coverage


def describe_rows(examples: Sequence[Example], coverage: AlignmentStats) -> str:
    """How many rows the records make, and how full they are."""
    return (
        f"{coverage.records} records in {len(examples)} rows of "
        f"{max(len(row.tokens) for row in examples)} tokens, of which "
        f"{filled(examples):.1%} are no padding"
    )


def claim_folder(folder: Path, config: Experiment | Finetune) -> None:
    """Makes the output folder, and notes settings and environment in it.

    Raises:
        InputError: not all processes see the same folder.
    """
    if is_primary():
        create_folder(folder, config)
        note_environment(folder)
    check_shared(folder / CONFIG_FILE)


def run_training(
    config: Experiment | Finetune,
    start: Start,
    examples: Sequence[Example],
    guidance: Guidance | None,
    seed: int,
    folder: Path,
    evaluate: Callable[[Any], Mapping[str, float]],
    report: Report,
) -> TrainState:
    """From the newest checkpoint, if there is one, to the last step.

    Args:
        config: its optimizer and loop.
        start: what is trained.
        examples: on which rows.
        guidance: the second objective.
        seed: of the order of rows.
        folder: for checkpoints and metrics.
        evaluate: parameters of the model (adapters attached) to values for the log.
        report: sees every line of the log.
    """
    loop = config.train
    optimizer = make_optimizer(config.optimizer, loop.steps)
    batches = training_batches(
        examples,
        batch_size=loop.batch_size,
        seed=seed,
        process_indices=process_indices(start.mesh, loop.batch_size),
    )
    gamma = None
    if guidance is not None:
        gamma = guidance_weight(
            guidance.schedule,
            guidance.weight,
            rate=guidance.rate,
            steps=loop.steps,
            steps_per_epoch=len(examples) // loop.batch_size,
        )
    step = make_train_step(
        start.model,
        optimizer,
        start.mesh,
        guidance,
        gamma,
        start.base,
        accumulate=loop.accumulate,
        loss_chunk=loop.loss_chunk,
    )
    checkpoints = Checkpoints(folder / "checkpoints", settings(config), keep=loop.keep)
    state = new_state(start.params, optimizer, start.mesh)
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state, batches)
    project = loop.wandb_project if is_primary() else None
    tracker = open_tracker(project, folder, settings(config))
    log = MetricsLog(folder, int(state.step), tracker)
    try:
        with ends_with_the_others(checkpoints.last_good):
            return train(
                state,
                step,
                batches,
                config=loop,
                work=step_flops(
                    start.model.config, None if start.base is None else start.base.lora
                ),
                checkpoints=checkpoints,
                log=log,
                evaluate=lambda trained: evaluate(start.complete_params(trained)),
                report=report,
            )
    finally:
        log.close()
        checkpoints.close()
