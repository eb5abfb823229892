"""One pure optimizer step over both objectives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cat_jax.config import Guidance, Training
from cat_jax.data.batches import Batch
from cat_jax.losses import sum_means
from cat_jax.losses.objective import LossSums, Metrics, combined_loss, compute_metrics, denominators
from cat_jax.models import CausalLM, attach_lora
from cat_jax.sharding import BATCH_AXES, HEAD_AXES, SEQUENCE_AXES, shard_batch
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.types import Array
from pallas_kernels import Partition

Loss = Callable[[Any, Batch, Array], tuple[Array, LossSums]]
"""(params, batch, number of the micro-batch) -> its share of the loss, and its terms."""


class TrainStep:
    """``(state, batch) -> (state, metrics)``; the old state's buffers are reused.

    It is compiled at the first call and never again: a state or batch of other shapes, or that
    lies elsewhere, is refused.
    """

    def __init__(self, step: Callable[..., Any], frozen: Any, mesh: Mesh):
        """Takes ``step(state, frozen, batch)``; ``frozen`` are parameters under adapters."""
        self._jitted = jax.jit(step, donate_argnums=0)
        self._frozen = frozen
        self._mesh = mesh
        self._program: jax.stages.Compiled | None = None

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step; of the batch, each process gives its share of the rows."""
        rows = shard_batch(batch, self._mesh)
        if self._program is None:
            self._program = self.lower(state, rows).compile()
        return self._program(state, self._frozen, rows)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The program of arrays, or of shapes with shardings, before it is compiled."""
        return self._jitted.lower(state, self._frozen, batch)


def make_train_step(
    model: CausalLM,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    guidance: Guidance | None = None,
    gamma: optax.Schedule | None = None,
    base: FrozenBase | None = None,
    *,
    accumulate: int = 1,
    loss_chunk: int = Training.loss_chunk,
) -> TrainStep:
    """The step of both objectives, compiled when it is first taken.

    Args:
        model: whose parameters are trained.
        optimizer: applied to the gradient of the combined loss.
        mesh: of ``make_mesh``; the batch is split by its rows, the state as ``new_state`` puts it.
        guidance: the second objective; None trains on next tokens alone.
        gamma: weight of the second objective as a function of the step; needed with guidance.
        base: train adapters on these parameters; None trains all parameters.
        accumulate: micro-batches that the rows are computed in, one after the other. The step is
            that of the whole batch: losses and metrics are averaged over all of its rows. Only
            the inputs that adapters drop are others.
        loss_chunk: positions of every row whose logits are in memory at a time.
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
                model, params, batch, guidance, weight, loss_chunk=loss_chunk, counts=counts
            )

        gradient, terms = accumulated_gradient(loss, state.params, batch, accumulate)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = compute_metrics(terms, weight) | read_amounts(batch)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        state = TrainState(state.step + 1, params, opt_state)
        # Where it was, or the next step would be another program.
        shardings = state_shardings(state, optimizer, mesh)
        return jax.lax.with_sharding_constraint(state, shardings), metrics

    # The base is an argument: as a constant it would be copied into the program.
    frozen = None if base is None else base.params
    return TrainStep(step, frozen, mesh)


def read_amounts(batch: Batch) -> Metrics:
    """How many ``tokens`` are not padding, and how many ``pairs`` of query and key are visible.

    float32: the pairs of long rows are too many for 32-bit integers.
    """
    visible_BT = batch.visible_count_BT
    return {
        "tokens": (visible_BT > 0).sum(dtype=jnp.float32),
        "pairs": visible_BT.sum(dtype=jnp.float32),
    }


def accumulated_gradient(
    loss: Loss, params: Any, batch: Batch, accumulate: int
) -> tuple[Any, LossSums]:
    """Gradient and terms of the sum of ``loss`` over ``accumulate`` equal parts of the batch."""
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
    """[B, ...] to [parts, B / parts, ...], part n taking every row n modulo ``parts``.

    So each device finds its share of every part among the rows that it holds.
    """
    return x_B.reshape(-1, parts, *x_B.shape[1:]).swapaxes(0, 1)
