"""What stands for checkpoints where a run has no workdir: the best parameters, on the host."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.sharding import to_host
from cat_jax.train.evaluations import Evaluations
from cat_jax.train.state import TrainState


class BestInMemory:
    """The interface of ``Checkpoints`` for a run that writes nothing.

    Attributes:
        evaluations: Evaluations so far.
    """

    def __init__(self):
        """Start without any."""
        self.evaluations = Evaluations()
        self._best: tuple[int, Any] | None = None

    def last_good(self) -> str:
        """Say that there is nothing to continue from."""
        return "no checkpoint was saved, as the run has no workdir"

    def saved(self, step: int) -> str:
        """Say what is left of an interrupted run."""
        return f"step {step} is lost, as the run has no workdir"

    def save(self, state: TrainState, batches: Any) -> None:
        """Keep the parameters of the best evaluation."""
        step = int(state.step)
        if self.evaluations.best == step and (self._best is None or self._best[0] != step):
            self._best = step, jax.tree.map(to_host, state.params)

    def wait(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Run the block."""
        yield

    def restore_best(self, state: TrainState) -> TrainState:
        """Return the state with the parameters of the best evaluation, where the others were."""
        assert self._best is not None  # saved when it was evaluated
        step, params = self._best

        def place(value: np.ndarray, like: jax.Array) -> jax.Array:
            sharding = like.sharding
            like.delete()
            return jax.make_array_from_callback(value.shape, sharding, lambda i: value[i])

        if int(state.step) == step:
            return state
        params = jax.tree.map(place, params, state.params)
        return TrainState(jnp.int32(step), params, state.opt_state)
