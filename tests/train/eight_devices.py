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
from cat_jax.data.pipeline import stack_examples
from cat_jax.data.stg import stg_records
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora
from cat_jax.sharding import AXES, MeshShape, make_mesh
from cat_jax.train.state import FrozenBase, new_state, state_shardings
from cat_jax.train.step import make_train_step

rows = list(islice(stg_records(seed=1), 16))
tokenizer = train_tokenizer(row.text for row in rows)
examples, _ = align_records(rows, tokenizer, max_length=99)
batch = stack_examples(examples)
vocabulary = -(-len(tokenizer) // 8) * 8
config = ModelConfig(vocabulary, 16, 24, 2, 8, 8, 4, qk_norm=True, attention="xla_chunked")
model = CausalLM(config)
start = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3, momentum=0.9))
guidance = Guidance(form="mass_nll", scope="head")


def train(mesh, steps=2, base=None, params=start):
    step = make_train_step(model, optimizer, mesh, guidance, lambda step: 1.0, base)
    state = new_state(params, optimizer, mesh)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


def collectives(mesh):
    """The kinds of communication in the compiled step."""
    step = make_train_step(model, optimizer, mesh, guidance, lambda step: 1.0)
    text = jax.jit(step).lower(new_state(start, optimizer, mesh), batch).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))


one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES)
expected, expected_losses = train(one)
assert expected_losses[1] < expected_losses[0]
for shape in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (2, 4, 1), (4, 1, 2), (1, 4, 2)):
    mesh = make_mesh(MeshShape(*shape), batch_size=16)
    state, losses = train(mesh)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for a, e in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5)
    wanted = state_shardings(state, optimizer, mesh)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (shape, leaf.sharding)
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 16 // shape[1], 24 // shape[2])
    print(shape, collectives(mesh))
    moment = state.opt_state[1][0].trace["layers"]["mlp"]["up"]["kernel"]
    assert moment.sharding.is_equivalent_to(kernel.sharding, 3)

lora = LoraConfig(rank=4, alpha=8.0, dropout=0.0)
adapters = init_lora(jax.random.key(1), config, lora)
expected, expected_losses = train(one, base=FrozenBase(start, lora), params=adapters)
mesh = make_mesh(MeshShape(2, 2, 2), batch_size=16)
state, losses = train(mesh, base=FrozenBase(start, lora), params=adapters)
np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
print("equal")
