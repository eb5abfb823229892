"""One pure optimizer step over both objectives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cat_jax.config import Guidance
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
from cat_jax.models import CausalLM, attach_lora
from cat_jax.sharding import BATCH_AXES, HEAD_AXES, SEQUENCE_AXES, shard_batch
from cat_jax.train.divergence import NONFINITE, nonfinite_leaves
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.types import Array
from pallas_kernels import Partition

Loss = Callable[[Any, Batch, Array], tuple[Array, LossSums]]
"""(params, batch, index of the micro-batch) -> its share of the loss, and its sums."""


class TrainStep:
    """``(state, batch) -> (state, metrics)``; the old state is donated.

    It is compiled at the first call and never again: a state or batch of other shapes or
    shardings is refused.
    """

    def __init__(
        self, step: Callable[..., Any], frozen: Any, mesh: Mesh, targets: int | None = None
    ):
        """Take ``step(state, frozen, batch)``.

        ``frozen`` are parameters under adapters; no sequence may have more than ``targets``.
        """
        self._jitted = jax.jit(step, donate_argnums=0)
        self._frozen = frozen
        self._mesh = mesh
        self._targets = targets
        self._program: jax.stages.Compiled | None = None

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take one step; each process gives its share of the batch's sequences.

        Raises:
            ValueError: A sequence has more targets than logits are computed for.
        """
        check_targets(batch, self._targets)
        sharded = shard_batch(batch, self._mesh)
        if self._program is None:
            self._program = self.lower(state, sharded).compile()
        return self._program(state, self._frozen, sharded)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """Lower the step for arrays, or for shapes with shardings."""
        return self._jitted.lower(state, self._frozen, batch)


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
    accumulate: int = 1,
    budget: LogitBudget = LogitBudget(),  # noqa: B008
) -> TrainStep:
    """Return the step of both objectives, compiled at its first call.

    Args:
        model: Model whose parameters are trained.
        optimizer: Optimizer of the combined loss.
        mesh: Mesh of ``make_mesh``; the batch is split by sequences, the state as by ``new_state``.
        guidance: Second objective; None trains on next tokens alone.
        gamma: Weight of the second objective as a function of the step; needed with guidance.
        base: Parameters to train adapters on; None trains all parameters.
        accumulate: Micro-batches per step. The step is that of the whole batch: losses and metrics
            are averaged over all of its sequences. Only adapter dropout draws other masks.
        budget: Which logits each device computes, and how many at a time.
    """
    model = model.clone(partition=Partition(mesh, BATCH_AXES, HEAD_AXES, SEQUENCE_AXES))

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        weight = 0.0 if gamma is None else gamma(state.step)
        counts = denominators(batch, guidance)

        def loss(params: Any, batch: Batch, number: Array) -> tuple[Array, LossSums]:
            if base is not None:
                # From the step alone, so that a resumed run drops the same inputs.
                step_key = jax.random.fold_in(jax.random.key(base.seed), state.step)
                dropout_key = jax.random.fold_in(step_key, number)
                params = attach_lora(frozen, params, base.lora, dropout_key)
            return combined_loss(
                model, params, batch, guidance, weight, budget=budget, counts=counts
            )

        gradient, terms = accumulated_gradient(loss, state.params, batch, accumulate)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = compute_metrics(terms, weight) | count_tokens(batch, counts)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        metrics[NONFINITE] = nonfinite_leaves(gradient)
        state = TrainState(state.step + 1, params, opt_state)
        # The same shardings as before, or the next step would be another program.
        shardings = state_shardings(state, optimizer, mesh)
        return jax.lax.with_sharding_constraint(state, shardings), metrics

    # The base is an argument: as a constant it would be copied into the program.
    frozen = None if base is None else base.params
    return TrainStep(step, frozen, mesh, budget.targets)


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
