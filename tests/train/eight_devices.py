"""Run by ``test_eight_devices.py`` in a process with eight devices."""

import dataclasses
import math
import re
from collections import Counter
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cat_jax.config import AttentionDropout, Guidance, InputGradient, Optimizer
from cat_jax.data.alignment import align_records
from cat_jax.data.batches import most_targets, stack_examples
from cat_jax.data.packing import pack_examples
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.evaluation import make_validation
from cat_jax.losses import LogitBudget
from cat_jax.models import (
    CausalLM,
    LoraConfig,
    ModelConfig,
    init_lora,
    param_shardings,
    quantize_params,
)
from cat_jax.sharding import MESH_AXES, MeshShape, make_mesh, shard_batch
from cat_jax.tasks.stg import stg_records
from cat_jax.train.optimizer import make_optimizer
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
KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
BUDGET = LogitBudget(tokens=24, targets=most_targets(packed))


PARAMETERS = sum(leaf.size for leaf in jax.tree.leaves(start))
SCALARS = 200  # sums of losses, metrics and norms


def train(
    mesh,
    base=None,
    params=start,
    accumulate=1,
    optimizer=optimizer,
    model=model,
    regularizer=None,
):
    """State and losses after two steps of one program, and the program's text."""
    step = make_train_step(
        model,
        optimizer,
        mesh,
        guidance,
        lambda step: 1.0,
        base,
        regularizer=regularizer,
        accumulate=accumulate,
        budget=BUDGET,
    )
    state, rows = new_state(params, optimizer, mesh), shard_batch(batch, mesh)
    program = step.lower(state, rows).compile()
    losses = []
    for _ in range(2):  # a program refuses a state that lies elsewhere than the one before
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses, program.as_text()


def projected(shape):
    """Tokens whose logits a device computes, and the pieces that it does so in."""
    data, fsdp, _, context = shape
    rows, length = batch.tokens_BT.shape
    tokens = rows // (data * fsdp) * min(BUDGET.targets, -(-length // context))
    return tokens, -(-tokens // BUDGET.tokens)


def traffic(shape, text):
    """Numbers that a device sends or gets in one step, by the kind of communication."""
    total = Counter()
    _, pieces = projected(shape)
    for line in text.splitlines():
        found = re.search(rf" = (.*?) ({KINDS})(?:-start)?\(", line)
        if found is None:
            continue
        shapes = re.findall(r"[a-z]+\d+\[([\d,]*)\]", found[1])
        size = sum(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)
        name = re.search(r'op_name="([^"]*)"', line)[1]
        # Only scalars of the losses are added up: the mass of each row stays where it is.
        assert "guidance_loss" not in name or found[2] == "all-reduce", line
        loops = config.num_layers if "hidden_states/while" in name else 1
        loops *= pieces if "next_token_loss" in name and "while" in name else 1
        total[found[2]] += loops * size
    return total


def check_traffic(shape, text):
    """No more than the mesh asks for; ``docs/scale.md`` explains each."""
    data, fsdp, tensor, context = shape
    sent = traffic(shape, text)
    rows, length = batch.tokens_BT.shape
    positions = -(-length // context)  # the last device's may be padding
    activations = rows * positions * config.width / (data * fsdp)
    parameters = PARAMETERS / tensor
    allowed = Counter({"all-reduce": SCALARS})
    if data > 1:  # gradients
        allowed["all-reduce"] += parameters / (fsdp * context)
    if fsdp * context > 1:  # parameters, forward and backward; gradients; the embedding
        allowed["all-gather"] += 2 * parameters
        allowed["all-reduce"] += parameters
        allowed["all-to-all"] += 2 * activations
    if tensor > 1:
        # Two sums forward, five backward in every layer; embedding, gradient of the logits.
        allowed["all-reduce"] += (7 * config.num_layers + 2.6) * activations
        # The best guess of each device and its logit.
        tokens, pieces = projected(shape)
        allowed["all-gather"] += 2 * tensor * (tokens + pieces)
    if context > 1:
        # Query, key, value and output, and the gradient of each, from positions to heads or back.
        values = activations * config.num_heads * config.head_dim / config.width / tensor
        allowed["all-to-all"] += 8 * config.num_layers * values
        allowed["collective-permute"] += 3 * rows / (data * fsdp)  # labels of last positions
    for kind, numbers in sent.items():
        assert 0.3 * allowed[kind] <= numbers <= allowed[kind], (shape, kind, sent, allowed)


def close(ours, expected):
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), MESH_AXES)
expected, expected_losses, _ = train(one)
assert expected_losses[1] < expected_losses[0]
whole = ((8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (2, 2, 2, 1))
in_parts = ((2, 4, 1, 1), (4, 1, 2, 1), (1, 4, 2, 1), (1, 2, 2, 2))
for shape in whole + in_parts:
    mesh = make_mesh(MeshShape(*shape), batch_size=16, accumulate=2)
    state, losses, text = train(mesh, accumulate=1 if shape in whole else 2)
    close((state, losses), (expected, expected_losses))
    if shape in whole:
        check_traffic(shape, text)
    wanted = state_shardings(state, optimizer, mesh)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (shape, leaf.sharding)
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    shard = (2, 16 // (shape[1] * shape[3]), 24 // shape[2])
    assert kernel.addressable_shards[0].data.shape == shard
    moment = state.opt_state[1][0].trace["layers"]["mlp"]["up"]["kernel"]
    assert moment.sharding.is_equivalent_to(kernel.sharding, 3)

lora = LoraConfig(rank=4, alpha=8.0, dropout=0.0)
adapters = init_lora(jax.random.key(1), config, lora)
expected, expected_losses, _ = train(one, FrozenBase(start, lora), adapters)
split = make_mesh(MeshShape(1, 2, 2, 2), batch_size=16)
base = FrozenBase(jax.device_put(start, param_shardings(start, split)), lora)
state, losses, _ = train(split, base, adapters)
close((state, losses), (expected, expected_losses))

quantised = quantize_params(start)
expected, expected_losses, _ = train(one, FrozenBase(quantised, lora), adapters)
base = FrozenBase(jax.device_put(quantised, param_shardings(quantised, split)), lora)
state, losses, _ = train(split, base, adapters)
close((state, losses), (expected, expected_losses))

again = {
    "model": CausalLM(dataclasses.replace(config, attention="xla")),
    "regularizer": InputGradient(weight=1e-3),
}
expected, expected_losses, _ = train(one, **again)
state, losses, _ = train(split, accumulate=2, **again)
close((state, losses), (expected, expected_losses))

again["regularizer"] = AttentionDropout(rate=0.7)
expected, expected_losses, _ = train(one, **again)
state, losses, _ = train(split, **again)
close((state, losses), (expected, expected_losses))

# Rows and columns of its moments have other shapes than their parameters.
wide = {"layers": {"mlp": {"up": {"kernel": jnp.ones((2, 64, 96))}}}}
adafactor = make_optimizer(Optimizer(name="adafactor", learning_rate=0.1, warmup=0.0), steps=3)
rows = new_state(wide, adafactor, split).opt_state[1].v_row["layers"]["mlp"]["up"]["kernel"]
assert rows.shape == (2, 64)
assert rows.sharding.is_fully_replicated
expected, expected_losses, _ = train(one, optimizer=adafactor)
state, losses, _ = train(split, optimizer=adafactor)
close((state, losses), (expected, expected_losses))

# Five empty rows complete the batch, and positions are padded for the devices that share them.
measured, expected = (
    make_validation(model, packed[:11], mesh, guidance, batch_size=16, logits_mib=1)(start)
    for mesh in (split, one)
)
assert measured.keys() == expected.keys() >= {"perplexity", "guidance_loss"}
close(measured, expected)


def working_memory(mesh):
    """Bytes besides the state that a step of one long row needs on a device."""
    long = shard_batch(jax.tree.map(lambda x: np.resize(x, (1, 1024, *x.shape[2:])), batch), mesh)
    budget = LogitBudget(16)
    step = make_train_step(model, optimizer, mesh, guidance, lambda step: 1.0, budget=budget)
    program = step.lower(new_state(start, optimizer, mesh), long).compile()
    return program.memory_analysis().temp_size_in_bytes


# Keys of all positions, logits of a chunk and gathered layers do not shrink.
assert working_memory(make_mesh(MeshShape(context=8), 1)) < working_memory(one) / 4
print("equal")
