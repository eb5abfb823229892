"""What a train step reads and writes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from cat_jax.models import LoraConfig, attach_lora
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
    params = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return jax.device_put(state, replicated(mesh))


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
