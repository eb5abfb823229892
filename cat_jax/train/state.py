"""What a train step reads and writes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from cat_jax.sharding import replicated
from cat_jax.types import Array


@struct.dataclass
class TrainState:
    """Parameters, optimizer state and the number of steps taken (int32 scalar)."""

    step: Array
    params: Any
    opt_state: Any


def new_state(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A state at step 0 on the mesh; it owns copies, so a step may donate its buffers."""
    params = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return jax.device_put(state, replicated(mesh))
