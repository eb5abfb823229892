"""Checkpoints: state, data position and configuration, written whole or not at all by orbax."""

from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from cat_jax.train.state import TrainState


class Checkpoints:
    """The checkpoints of one run; the two newest are kept.

    Saving is synchronous: when ``save`` returns, the step is safe.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        """Opens (or makes) ``folder``; ``config`` (JSON values) is stored in every checkpoint."""
        self.folder = folder.absolute()
        self._config = config
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, create=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest_step(self) -> int | None:
        """The newest saved step, None before the first."""
        return self._manager.latest_step()

    def save(self, state: TrainState, batches: grain.DatasetIterator) -> None:
        """Writes the state after ``state.step`` steps and the position in the data."""
        step = int(state.step)
        if step == self.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            position=ocp.args.JsonSave(batches.get_state()),
            config=ocp.args.JsonSave(self._config),
        )
        self._manager.save(step, args=items)

    def restore(self, state: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """The newest saved state, laid out like ``state``; moves ``batches`` to its position."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
            position=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(self.latest_step(), args=items)
        batches.set_state(restored["position"])
        return restored["state"]

    def close(self) -> None:
        """Releases the folder."""
        self._manager.close()
