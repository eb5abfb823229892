"""One pure optimizer step over both objectives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial

from cat_jax.config import Guidance, Regularizer
from cat_jax.data.batches import Batch
from cat_jax.losses import LogitBudget, sum_means
from cat_jax.losses.objective import (
    Denominators,
    LossSums,
    Metrics,
    combined_loss,
    compute_metrics,
    denominators,
)
from cat_jax.losses.schedules import guidance_weight
from cat_jax.models import CausalLM, LoraConfig, attach_lora
from cat_jax.sharding import BATCH_AXES, HEAD_AXES, SEQUENCE_AXES, shard_batch
from cat_jax.train.divergence import NONFINITE, nonfinite_leaves
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.types import Array
from pallas_kernels import Partition

Loss = Callable[[Any, Batch, Array], tuple[Array, LossSums]]
"""(params, batch, index of the micro-batch) -> its share of the loss, and its sums."""

NO_ADAPTER = 2**31
"""Beyond the numbers of the adapters, which draw from the same key."""


@dataclass(frozen=True)
class Program:
    """What a compiled step depends on; seeds, weights and schedules are its arguments.

    Steps that are equal in this share one compiled program in a process.
    """

    model: CausalLM
    optimizer: optax.GradientTransformation
    mesh: Mesh
    guidance: Guidance | None
    regularizer: Regularizer | None
    lora: LoraConfig | None
    accumulate: int
    budget: LogitBudget


class Arguments(NamedTuple):
    """What a step reads besides state and batch.

    Attributes:
        frozen: Parameters under adapters, or None.
        seed: Seed of dropout, uint32 scalar.
        gamma: Weight of the guidance loss as a function of the step, with its numbers as leaves.
    """

    frozen: Any
    seed: np.uint32
    gamma: Partial


class TrainStep:
    """``(state, batch) -> (state, metrics)``; the old state is donated.

    It is compiled at the first call and never again: a state or batch of other shapes or
    shardings is refused.
    """

    def __init__(self, program: Program, arguments: Arguments):
        """Take a program and what it reads."""
        self._program = program
        self._arguments = arguments
        self._compiled: jax.stages.Compiled | None = None

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take one step; each process gives its share of the batch's sequences.

        Raises:
            ValueError: A sequence has more targets than logits are computed for.
        """
        check_targets(batch, self._program.budget.targets)
        sharded = shard_batch(batch, self._program.mesh)
        if self._compiled is None:
            self._compiled = self.lower(state, sharded).compile()
        return self._compiled(state, self._arguments, sharded)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Lower the step for arrays, or for shapes with shardings."""
        return _step.lower(self._program, state, self._arguments, batch)


def check_targets(batch: Batch, most: int | None) -> None:
    """Raise ValueError if a sequence of a batch on the host has more targets than ``most``."""
    if most is None or not isinstance(batch.target_mask_BT, np.ndarray):
        return
    found = int(batch.target_mask_BT[:, 1:].sum(1).max(initial=0))
    if found > most:
        raise ValueError(f"a sequence has {found} targets, but the step was made for {most}")


def make_train_step(
    model: CausalLM,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    guidance: Guidance | None = None,
    gamma: optax.Schedule | None = None,
    base: FrozenBase | None = None,
    *,
    regularizer: Regularizer | None = None,
    seed: int = 0,
    accumulate: int = 1,
    budget: LogitBudget = LogitBudget(),  # noqa: B008
) -> TrainStep:
    """Return the step of both objectives, compiled at its first call.

    Steps of a process that differ in seeds, frozen parameters and gamma alone share a program, if
    they have one ``optimizer`` (as ``make_optimizer`` gives for equal settings) and gamma is of
    ``guidance_weight``.

    Args:
        model: Model whose parameters are trained.
        optimizer: Optimizer of the combined loss.
        mesh: Mesh of ``make_mesh``; the batch is split by sequences, the state as by ``new_state``.
        guidance: Second objective; None trains on next tokens alone.
        gamma: Weight of the second objective as a function of the step; needed with guidance.
        base: Parameters to train adapters on; None trains all parameters.
        regularizer: Another use of the annotation; None has none.
        seed: Seed of what the regularizer draws; adapters' dropout has that of ``base``.
        accumulate: Micro-batches per step. The step is that of the whole batch: losses and metrics
            are averaged over all of its sequences. Only dropout draws other masks.
        budget: Which logits each device computes, and how many at a time.
    """
    model = model.clone(partition=Partition(mesh, BATCH_AXES, HEAD_AXES, SEQUENCE_AXES))
    if guidance is not None:  # gamma stands for these
        guidance = replace(guidance, weight=1.0, schedule="constant", rate=1.0)
    lora = None if base is None else base.lora
    program = Program(model, optimizer, mesh, guidance, regularizer, lora, accumulate, budget)
    frozen, seed = (None, seed) if base is None else (base.params, base.seed)
    if gamma is None:
        gamma = guidance_weight("constant", 0.0, rate=0.0, steps=1, steps_per_epoch=1)
    gamma = gamma if isinstance(gamma, Partial) else Partial(gamma)
    return TrainStep(program, Arguments(frozen, np.uint32(seed), gamma))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    program: Program, state: TrainState, arguments: Arguments, batch: Batch
) -> tuple[TrainState, Metrics]:
    guidance = program.guidance
    weight = arguments.gamma(state.step)
    counts = denominators(batch, guidance, program.regularizer)

    def loss(params: Any, batch: Batch, number: Array) -> tuple[Array, LossSums]:
        # From the step alone, so that a resumed run drops the same.
        step_key = jax.random.fold_in(jax.random.key(arguments.seed), state.step)
        dropout_key = jax.random.fold_in(step_key, number)
        if program.lora is not None:
            params = attach_lora(arguments.frozen, params, program.lora, dropout_key)
        return combined_loss(
            program.model,
            params,
            batch,
            guidance,
            weight,
            budget=program.budget,
            counts=counts,
            regularizer=program.regularizer,
            key=jax.random.fold_in(dropout_key, NO_ADAPTER),
        )

    gradient, terms = accumulated_gradient(loss, state.params, batch, program.accumulate)
    with jax.named_scope("optimizer"):
        updates, opt_state = program.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    metrics = compute_metrics(terms, weight, program.regularizer) | count_tokens(batch, counts)
    metrics["gradient_norm"] = optax.tree.norm(gradient)
    metrics[NONFINITE] = nonfinite_leaves(gradient)
    state = TrainState(state.step + 1, params, opt_state)
    # The same shardings as before, or the next step would be another program.
    shardings = state_shardings(state, program.optimizer, program.mesh)
    return jax.lax.with_sharding_constraint(state, shardings), metrics


def count_tokens(batch: Batch, counts: Denominators) -> Metrics:
    """Count ``tokens`` that are not padding, ``targets``, and visible ``pairs`` of query and key.

    They are float32: the pairs of long sequences are too many for 32-bit integers.
    """
    visible_BT = batch.visible_count_BT
    return {
        "tokens": (visible_BT > 0).sum(dtype=jnp.float32),
        "targets": counts.targets.astype(jnp.float32),
        "pairs": visible_BT.sum(dtype=jnp.float32),
    }


def accumulated_gradient(
    loss: Loss, params: Any, batch: Batch, accumulate: int
) -> tuple[Any, LossSums]:
    """Return gradient and sums of ``loss``, added up over ``accumulate`` micro-batches."""
    gradient_of = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        return gradient_of(params, batch, jnp.int32(0))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, LossSums]:
        gradient, terms = gradient_of(params, *part)
        return jax.tree.map(jnp.add, total, gradient), terms

    zeros = jax.tree.map(jnp.zeros_like, params)
    parts = jax.tree.map(lambda x: _strided(x, accumulate), batch), jnp.arange(accumulate)
    gradient, terms = jax.lax.scan(add, zeros, parts)
    return gradient, sum_means(terms)


def _strided(x_B: Array, parts: int) -> Array:
    """Reshape [B, ...] to [parts, B / parts, ...]; part n takes every sequence n modulo ``parts``.

    So each device finds its share of every part among the sequences that it holds.
    """
    return x_B.reshape(-1, parts, *x_B.shape[1:]).swapaxes(0, 1)
