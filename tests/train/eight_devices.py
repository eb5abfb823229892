"""Run by ``test_eight_devices.py`` in a process with eight devices."""

import re
from collections import Counter
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cat_jax.config import Guidance
from cat_jax.data.alignment import align_records
from cat_jax.data.packing import pack_examples
from cat_jax.data.pipeline import stack_examples
from cat_jax.data.stg import stg_records
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora
from cat_jax.sharding import AXES, MeshShape, make_mesh, put_rows
from cat_jax.train.state import FrozenBase, new_state, state_shardings
from cat_jax.train.step import make_train_step

records = list(islice(stg_records(seed=1), 40))
tokenizer = train_tokenizer(row.text for row in records)
examples, _ = align_records(records, tokenizer, max_length=99)
packed = pack_examples(examples, length=50, seed=0)[:16]
assert len(packed) == 16
batch = stack_examples(packed)
vocabulary = -(-len(tokenizer) // 8) * 8
config = ModelConfig(vocabulary, 16, 24, 2, 8, 8, 4, qk_norm=True, attention="xla_chunked")
model = CausalLM(config)
start = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3, momentum=0.9))
guidance = Guidance(form="mass_nll", scope="head")


def make_step(mesh, base=None, accumulate=1):
    return make_train_step(
        model,
        optimizer,
        mesh,
        guidance,
        lambda step: 1.0,
        base,
        accumulate=accumulate,
        loss_chunk=16,
    )


def train(mesh, base=None, params=start, accumulate=1):
    step = make_step(mesh, base, accumulate)
    state = new_state(params, optimizer, mesh)
    losses = []
    for _ in range(2):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert step.program._cache_size() == 1  # the second step is the first's program
    return state, losses


def collectives(mesh):
    """Kinds of communication in the compiled step, by the loop depth they run at."""
    step = make_step(mesh)
    text = step.lower(new_state(start, optimizer, mesh), put_rows(batch, mesh)).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    for line in text.splitlines():
        found = re.search(rf" ({kinds})(?:-start)?\(", line)
        if found:
            name = re.search(r'op_name="([^"]*)"', line)
            print(mesh.devices.shape, found[1], line.split(" = ")[1].split(found[1])[0][:60], (name[1] if name else "")[:170])


one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES)
for shape in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)):
    mesh = make_mesh(MeshShape(*shape), batch_size=16)
    collectives(mesh)
