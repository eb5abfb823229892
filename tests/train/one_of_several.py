"""Run by ``test_several_processes.py``, for several processes; also gives the run of a single one.

JAX is imported once; every process is a fork from before its backend starts.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cat_jax.config import Guidance, Optimizer, Training
from cat_jax.data.alignment import Example
from cat_jax.data.batches import training_batches
from cat_jax.distributed import end_if_peer_lost, is_primary, join_processes
from cat_jax.evaluation import causal_mass
from cat_jax.models import CausalLM, ModelConfig, save_pretrained
from cat_jax.sharding import (
    HEAD_AXES,
    MESH_AXES,
    MeshShape,
    make_mesh,
    process_indices,
    shard_batch,
    to_host,
)
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.loop import train
from cat_jax.train.metrics import MetricsLog
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import step_flops
from experiments.command_line import exit_status
from pallas_kernels import Partition

MODEL = CausalLM(ModelConfig(16, 8, 12, 2, 2, 2, 4))
BATCH_AXES, BATCH, SAVE_EVERY = 22, 8, 3


def make_examples(length=6):
    """Rows that differ, whose last token repeats the first, on which it depends."""
    positions = np.arange(length, dtype=np.int32)
    examples = []
    for row in range(BATCH_AXES):
        tokens = np.array([1 + row % 11, 2 + row // 11, 4, 5, 6, 1 + row % 11], np.int32)
        examples.append(
            Example(
                tokens=tokens,
                target_mask=positions >= length - 2 - row % 3,
                q_bits=(positions == length - 2).astype(np.uint32)[:, None],
                k_bits=(positions == 0).astype(np.uint32)[:, None],
                causal_count=(positions == length - 2).astype(np.int32),
                visible_count=positions + 1,
            )
        )
    return examples


def run(folder, shape=(None, 1, 1), steps=7, kill=None):
    """Trains to ``steps`` from the newest checkpoint; ``kill`` is (process, step)."""
    config = Training(steps=steps, batch_size=BATCH, log_every=1, eval_every=4, save_every=3)
    examples, mesh = make_examples(), make_mesh(MeshShape(*shape), BATCH)
    optimizer = make_optimizer(Optimizer(learning_rate=1e-2), 7)
    own = process_indices(mesh, BATCH)
    batches = training_batches(examples, batch_size=BATCH, seed=3, process_indices=own)
    params = jax.jit(MODEL.init)(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))["params"]
    state = new_state(params, optimizer, mesh)
    checkpoints = Checkpoints(folder / "checkpoints", {})
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state, batches)
    start, seen = int(state.step), []
    step_function = make_train_step(MODEL, optimizer, mesh, Guidance(), lambda step: 0.5)

    def step(state, batch):
        seen.append(batch.tokens_BT.tolist())
        if kill == (jax.process_index(), start + len(seen)):
            os.kill(os.getpid(), signal.SIGKILL)
        return step_function(state, batch)

    model = MODEL.clone(partition=Partition(mesh, head_axes=HEAD_AXES))
    log = MetricsLog(folder, resume_step=start)
    try:
        with end_if_peer_lost(checkpoints.last_good):
            state = train(
                state,
                step,
                batches,
                config=config,
                steps_per_epoch=3,
                flops=step_flops(MODEL.config),
                checkpoints=checkpoints,
                log=log,
                evaluate=lambda params: {"mass": causal_mass(model, params, examples)},
            )
    finally:
        log.close()
        checkpoints.close()
    save_pretrained(folder / "model", MODEL.config, state.params)
    return {"start": start, "own": own.tolist(), "seen": seen}


def deal_rows():
    """Rows that come back whole from a mesh whose neighbours are in different processes."""
    dealt = np.array(jax.devices()).reshape(jax.process_count(), -1).T.reshape(-1, 1, 1, 1)
    mesh, rows = Mesh(dealt, MESH_AXES), np.arange(2 * len(dealt) * 3).reshape(-1, 3)
    own = process_indices(mesh, len(rows))
    array = shard_batch(rows[own], mesh)
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, rows[shard.index])
    np.testing.assert_array_equal(to_host(array), rows)
    return own.tolist()


def main():
    join_processes()
    dealt = deal_rows()
    folder, shape, steps, kill = sys.argv[1], *map(json.loads, sys.argv[2:])
    found = run(Path(folder), shape, steps, kill and tuple(kill))
    found |= {"first": is_primary(), "dealt": dealt}
    (Path(folder) / f"process-{jax.process_index()}.json").write_text(json.dumps(found))


def fork(number):
    """A process of the run, whose errors go to a file."""
    child = os.fork()
    if child == 0:
        errors = os.open(Path(sys.argv[1]) / f"errors-{number}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.dup2(errors, 2)
        os.environ["JAX_PROCESS_ID"] = str(number)
        sys.exit(exit_status(main))
    return child


if __name__ == "__main__":
    children = [fork(number) for number in range(int(os.environ["JAX_NUM_PROCESSES"]))]
    ends = [os.waitpid(child, 0)[1] for child in children]
    print(json.dumps([os.waitstatus_to_exitcode(end) for end in ends]))
