"""Run by ``test_restore_elsewhere.py`` in a process with eight devices."""

import sys
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cat_jax.config import Guidance
from cat_jax.data.alignment import align_records
from cat_jax.data.batches import training_batches
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.losses import LogitBudget
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import MESH_AXES, MeshShape, make_mesh
from cat_jax.tasks.stg import stg_records
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.state import new_state, state_shardings
from cat_jax.train.step import make_train_step

records = list(islice(stg_records(seed=1), 40))
tokenizer = train_tokenizer(row.text for row in records)
examples, _ = align_records(records, tokenizer, max_length=99)
model = CausalLM(ModelConfig(-(-len(tokenizer) // 8) * 8, 16, 24, 1, 8, 8, 4))
start = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))


def go_on(state, batches, mesh, steps):
    budget = LogitBudget(16)
    step = make_train_step(model, optimizer, mesh, Guidance(), lambda step: 1.0, budget=budget)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["loss"]))
    return state, losses


def main(folder):
    meshes = [make_mesh(MeshShape(*s), 16) for s in ((2, 2, 2), (1, 8, 1), (8, 1, 1))]
    meshes.append(Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), MESH_AXES))
    batches = training_batches(examples, batch_size=16, seed=3)
    state, _ = go_on(new_state(start, optimizer, meshes[0]), batches, meshes[0], 2)
    checkpoints = Checkpoints(folder, {})
    checkpoints.save(state, batches)
    saved = jax.device_get(state)
    checkpoints.close()
    _, expected = go_on(state, batches, meshes[0], 2)
    for mesh in meshes[1:]:
        batches = training_batches(examples, batch_size=16, seed=3)
        checkpoints = Checkpoints(folder, {})
        restored = checkpoints.restore(new_state(start, optimizer, mesh), batches)
        checkpoints.close()
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), saved)
        shardings = state_shardings(restored, optimizer, mesh)
        assert jax.tree.all(
            jax.tree.map(
                lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim),
                restored,
                shardings,
            )
        )
        _, losses = go_on(restored, batches, mesh, 2)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        assert losses[0] != losses[1]
    print("equal")


main(Path(sys.argv[1]))
