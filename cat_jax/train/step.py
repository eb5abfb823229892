"""One pure optimizer step over both objectives."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from cat_jax.config import Guidance
from cat_jax.data.pipeline import Batch
from cat_jax.losses import attention_guidance_loss, next_token_loss
from cat_jax.models import Aux, CausalLM, attach_lora
from cat_jax.sharding import HEADS, ROWS, split_rows
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.types import Array
from pallas_kernels import Partition

Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def combined_loss(
    model: CausalLM, params: Any, batch: Batch, guidance: Guidance | None, gamma: ArrayLike
) -> tuple[Array, Metrics]:
    """L = L_next_token + gamma * L_guidance (CAT, Han et al., EMNLP 2025).

    Without guidance the statistic is not computed at all: plain fine-tuning pays nothing for it.
    """
    q_bits, k_bits = (None, None) if guidance is None else (batch.q_bits_BTW, batch.k_bits_BTW)
    with jax.named_scope("forward"):
        outputs = model.apply({"params": params}, batch.tokens_BT, q_bits=q_bits, k_bits=k_bits)
        logits_BTV, aux = cast("tuple[Array, Aux]", outputs)
    with jax.named_scope("next_token_loss"):
        loss, metrics = next_token_loss(logits_BTV, batch.tokens_BT, batch.target_mask_BT)
    metrics = {"next_token_loss": loss, **metrics}
    if guidance is None:
        return loss, {"loss": loss, **metrics}
    assert aux.mass is not None  # bits were given
    with jax.named_scope("guidance_loss"):
        guided, guided_metrics = attention_guidance_loss(
            aux.mass,
            batch.causal_count_BT,
            batch.visible_count_BT,
            form=guidance.form,
            alpha=guidance.alpha,
            scope=guidance.scope,
            reduce=guidance.reduce,
            layers=guidance.layers,
        )
    total = loss + gamma * guided
    metrics |= {"guidance_loss": guided, "gamma": jnp.asarray(gamma), **guided_metrics}
    return total, {"loss": total, **metrics}


def make_train_step(
    model: CausalLM,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    guidance: Guidance | None = None,
    gamma: optax.Schedule | None = None,
    base: FrozenBase | None = None,
) -> TrainStep:
    """Compiles ``(state, batch) -> (state, metrics)``; the old state's buffers are reused.

    Args:
        model: whose parameters are trained.
        optimizer: applied to the gradient of the combined loss.
        mesh: of ``make_mesh``; the batch is split by its rows, the state as ``new_state`` puts it.
        guidance: the second objective; None trains on next tokens alone.
        gamma: weight of the second objective as a function of the step; needed with guidance.
        base: train adapters on these parameters; None trains all parameters.
    """
    model = model.clone(partition=Partition(mesh, rows=ROWS, heads=HEADS))

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        weight = 0.0 if gamma is None else gamma(state.step)

        def loss(params):
            if base is not None:
                # From the step alone, so that a resumed run drops the same inputs.
                dropout_key = jax.random.fold_in(jax.random.key(base.seed), state.step)
                params = attach_lora(frozen, params, base.lora, dropout_key)
            return combined_loss(model, params, batch, guidance, weight)

        gradient, metrics = jax.grad(loss, has_aux=True)(state.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        state = TrainState(state.step + 1, params, opt_state)
        # Where it was, or the next step would be another program.
        shardings = state_shardings(state, optimizer, mesh)
        return jax.lax.with_sharding_constraint(state, shardings), metrics

    compiled = jax.jit(step, donate_argnums=0)
    # An argument: as a constant the base would be copied into the program.
    frozen = None if base is None else base.params
    rows = split_rows(mesh)
    return lambda state, batch: compiled(state, frozen, jax.device_put(batch, rows))
