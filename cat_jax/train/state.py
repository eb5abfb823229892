"""The train state: parameters, optimizer state and step, and their shardings."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from cat_jax.models import LoraConfig, attach_lora, param_shardings
from cat_jax.sharding import replicated
from cat_jax.types import Array


@struct.dataclass
class TrainState:
    """What a train step reads and writes.

    Attributes:
        step: Steps taken, int32 scalar.
        params: Trained parameters: those of the model, or adapters on a ``FrozenBase``.
        opt_state: Optimizer state.
    """

    step: Array
    params: Any
    opt_state: Any


def new_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    donate_params: bool = False,
) -> TrainState:
    """Return a state at step 0 on the mesh; a step may donate its buffers.

    Args:
        params: Initial parameters.
        optimizer: Its state is made for them.
        mesh: Mesh of ``make_mesh``.
        donate_params: Delete ``params``, so that they exist once; they are copied otherwise.
    """
    given = params if donate_params else jax.tree.map(jnp.copy, params)
    params = jax.device_put(given, param_shardings(given, mesh))
    state = _start(params, optimizer, mesh)
    jax.block_until_ready(state)
    for leaf in jax.tree.leaves(given):  # what was moved to the mesh; the rest is donated
        if isinstance(leaf, jax.Array) and not leaf.is_deleted():
            leaf.delete()
    return state


@partial(jax.jit, static_argnums=(1, 2), donate_argnums=0)
def _start(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return jax.lax.with_sharding_constraint(state, state_shardings(state, optimizer, mesh))


def state_shardings(
    state: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the shardings of a state: optimizer state lies where its parameter does.

    What is of another shape, as Adafactor's rows and columns are, is small and lies everywhere.
    """
    params = param_shardings(state.params, mesh)
    whole: Any = replicated(mesh)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda x, param, sharding: sharding if x.shape == param.shape else whole,
        state.opt_state,
        state.params,
        params,
        transform_non_params=lambda _: whole,
    )
    return TrainState(whole, params, opt_state)


@dataclass(frozen=True, eq=False)
class FrozenBase:
    """Frozen parameters under adapters: no gradient, no optimizer state, no checkpoint.

    Attributes:
        params: Parameters of the model.
        lora: Form of the adapters.
        seed: Seed of the adapters' dropout.
    """

    params: Any
    lora: LoraConfig
    seed: int = 0

    def attach(self, adapters: Any) -> Any:
        """Return the parameters that compute with the adapters."""
        return attach_lora(self.params, adapters, self.lora)
