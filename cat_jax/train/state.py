"""What a train step reads and writes."""

from dataclasses import dataclass
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
    """What is trained, optimizer state and the number of steps taken (int32 scalar).

    ``params`` are those of the model, or adapters where a ``FrozenBase`` is trained on.
    """

    step: Array
    params: Any
    opt_state: Any


def new_state(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A state at step 0 on the mesh; it owns copies, so a step may donate its buffers."""
    params = jax.device_put(jax.tree.map(jnp.copy, params), param_shardings(params, mesh))

    def start(params):
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shardings = state_shardings(jax.eval_shape(start, params), optimizer, mesh)
    return jax.jit(start, out_shardings=shardings, donate_argnums=0)(params)


def state_shardings(
    state: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Where a state lies: what the optimizer keeps of a parameter lies where the parameter does."""
    params = param_shardings(state.params, mesh)
    whole: Any = replicated(mesh)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        state.opt_state,
        params,
        transform_non_params=lambda _: whole,
    )
    return TrainState(whole, params, opt_state)


@dataclass(frozen=True, eq=False)
class FrozenBase:
    """The model that adapters are trained on: no gradient, no optimizer state, no checkpoint.

    Attributes:
        params: of the model.
        lora: form of the adapters.
        seed: of their dropout.
    """

    params: Any
    lora: LoraConfig
    seed: int = 0

    def attach(self, adapters: Any) -> Any:
        """The parameters that compute with the adapters."""
        return attach_lora(self.params, adapters, self.lora)
