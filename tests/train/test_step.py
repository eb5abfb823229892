"""One step against the same arithmetic written out, and plain training without the statistic."""

import dataclasses
import re
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cat_jax.config import Guidance, Optimizer, Training
from cat_jax.data.batches import stack_examples
from cat_jax.errors import InputError
from cat_jax.losses import LogitBudget, attention_guidance_loss, next_token_loss
from cat_jax.losses.objective import combined_loss, compute_metrics
from cat_jax.losses.schedules import guidance_weight
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora
from cat_jax.sharding import MeshShape, make_mesh
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, new_state
from cat_jax.train.step import make_train_step

MODEL = CausalLM(ModelConfig(13, 8, 12, 3, 4, 2, 6))
ONE_DEVICE = make_mesh(MeshShape(), batch_size=5)
loss_of = partial(combined_loss, MODEL, budget=LogitBudget(4))


@pytest.fixture
def params():
    return MODEL.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


@pytest.fixture
def batch(make_examples):
    return stack_examples(make_examples(5))


def test_combined_loss_is_the_sum_of_its_parts(params, batch):
    guidance = Guidance(form="hinge", alpha=3.0, scope="layer", layers=(1, 2))
    total, terms = loss_of(params, batch, guidance, 0.3)
    logits, aux = MODEL.apply(
        {"params": params}, batch.tokens_BT, q_bits=batch.q_bits_BTW, k_bits=batch.k_bits_BTW
    )
    plain, _ = next_token_loss(logits, batch.tokens_BT, batch.target_mask_BT)
    guided, _ = attention_guidance_loss(
        aux.mass,
        batch.causal_count_BT,
        batch.visible_count_BT,
        form="hinge",
        alpha=3.0,
        scope="layer",
        layers=(1, 2),
    )
    np.testing.assert_allclose(total, plain + 0.3 * guided, rtol=1e-6)
    np.testing.assert_allclose(compute_metrics(terms, 0.3)["loss"], total, rtol=1e-6)


def test_a_step_follows_the_gradient(params, batch):
    optimizer = make_optimizer(Optimizer(learning_rate=0.1, warmup=0.0, clip=0.01), steps=10)
    guidance = Guidance()
    step = make_train_step(MODEL, optimizer, ONE_DEVICE, guidance, lambda step: 0.5 + step)
    state, metrics = step(new_state(params, optimizer, ONE_DEVICE), batch)

    gradient = jax.grad(lambda p: loss_of(p, batch, guidance, 0.5)[0])(params)
    clipped = jax.tree.map(lambda g: g * jnp.minimum(1, 0.01 / optax.tree.norm(gradient)), gradient)
    # The first step of Adam moves each parameter by the learning rate along the gradient's sign.
    expected = jax.tree.map(lambda p, g: p - 0.1 * g / (jnp.abs(g) + 1e-8), params, clipped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), state.params, expected)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
    assert int(state.step) == 1


def test_the_caller_keeps_its_parameters(params, batch):
    optimizer = make_optimizer(Optimizer(), steps=10)
    step = make_train_step(MODEL, optimizer, ONE_DEVICE)
    step(new_state(params, optimizer, ONE_DEVICE), batch)
    assert np.isfinite(np.asarray(params["embed"]["embedding"])).all()  # not donated


@pytest.mark.parametrize("guidance", [None, Guidance()])
def test_plain_training_never_computes_the_statistic(params, batch, guidance):
    loss = jax.jit(lambda params, batch: loss_of(params, batch, guidance, 0.5)[0])
    bitwise_and = re.search(r"stablehlo\.and .*ui32", loss.lower(params, batch).as_text())
    assert (bitwise_and is not None) == (guidance is not None)


def test_gamma_of_zero_trains_like_the_baseline(params, batch):
    optimizer = make_optimizer(Optimizer(), steps=10)
    states = []
    for guidance, gamma in [(None, None), (Guidance(), lambda step: 0.0 * step)]:
        step = make_train_step(MODEL, optimizer, ONE_DEVICE, guidance, gamma)
        states.append(step(new_state(params, optimizer, ONE_DEVICE), batch)[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), states[0].params, states[1].params
    )


@contextmanager
def counted_programs():
    """Count what the compiler is given."""
    names = []

    def listen(name, seconds, **details):
        if name == "/jax/core/compile/backend_compile_duration":
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_seeds_weights_and_schedules_share_one_program(params, make_examples):
    """As arguments: each run has its own gamma and dropout, and one is compiled."""
    lora = LoraConfig(rank=2, dropout=0.5)
    adapters = jax.tree.map(lambda x: x + 0.1, init_lora(jax.random.key(1), MODEL.config, lora))
    batch = stack_examples(make_examples(5))
    runs = [("constant", 0.25, 1), ("exponential", 2.0, 1), ("linear", 0.5, 3), ("cosine", 0.5, 1)]
    losses, gammas = [], []

    def run(schedule, weight, seed):
        optimizer = make_optimizer(Optimizer(learning_rate=0.01), steps=10)
        guidance = Guidance(schedule=schedule, weight=weight, rate=weight)
        gamma = guidance_weight(schedule, weight, rate=0.5, steps=10, steps_per_epoch=1)
        base = FrozenBase(params, lora, seed)
        step = make_train_step(MODEL, optimizer, ONE_DEVICE, guidance, gamma, base)
        state = new_state(adapters, optimizer, ONE_DEVICE)
        state, first = step(state, batch)
        losses.append(float(first["next_token_loss"]))
        gammas.append([float(first["gamma"]), float(step(state, batch)[1]["gamma"])])

    run(*runs[0])
    with counted_programs() as programs:
        for later in runs[1:]:
            run(*later)
    assert not programs
    half = 0.25 * (1 + np.cos(np.pi / 10))
    expected = [[0.25, 0.25], [2.0, 2 * np.exp(-0.5)], [0.5, 0.45], [0.5, half]]
    np.testing.assert_allclose(gammas, expected, rtol=1e-6)
    assert losses[0] == losses[1] == losses[3]
    assert losses[2] != losses[0]  # another seed drops other inputs

    with counted_programs() as programs:  # the form is a part of the program
        optimizer = make_optimizer(Optimizer(learning_rate=0.01), steps=10)
        other = Guidance(form="div"), lambda step: 1.0, FrozenBase(params, lora)
        step = make_train_step(MODEL, optimizer, ONE_DEVICE, *other)
        step(new_state(adapters, optimizer, ONE_DEVICE), batch)
    assert len(programs) == 1


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, dropout=0.0)])
def test_micro_batches_take_the_step_of_the_whole_batch(params, make_examples, lora):
    """And they take the old state's memory, as the whole batch does."""
    examples = make_examples(6)
    for bare in (0, 3):  # the first of three parts has no annotation
        examples[bare] = dataclasses.replace(examples[bare], causal_count=np.zeros(6, np.int32))
    params["embed"]["embedding"] *= 30  # of size 1: a norm magnifies the rounding of small ones
    batch, optimizer, base = stack_examples(examples), optax.sgd(1.0), None
    if lora is not None:
        base = FrozenBase(params, lora)
        params = jax.tree.map(lambda x: x + 0.1, init_lora(jax.random.key(1), MODEL.config, lora))
    after = []
    for accumulate in (1, 3):
        step = make_train_step(
            *(MODEL, optimizer, ONE_DEVICE, Guidance(), lambda step: 0.5, base),
            accumulate=accumulate,
        )
        state = new_state(params, optimizer, ONE_DEVICE)
        after.append(step(state, batch))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    (whole, metrics), (parts, metrics_of_parts) = after

    def close(actual, expected):  # float32 sums: to the size of their largest terms
        atol = 1e-5 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)

    jax.tree.map(close, parts.params, whole.params)
    jax.tree.map(close, metrics_of_parts, metrics)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), whole.params, params)
    assert min(jax.tree.leaves(moved)) > 1e-5


def test_micro_batches_drop_inputs_of_their_own(params, make_examples):
    """Six equal rows: were their masks equal too, one part would be as good as three."""
    lora = LoraConfig(rank=2, dropout=0.5)
    base, optimizer = FrozenBase(params, lora), optax.sgd(1.0)
    adapters = jax.tree.map(lambda x: x + 0.1, init_lora(jax.random.key(1), MODEL.config, lora))

    def loss(rows, accumulate):
        step = make_train_step(MODEL, optimizer, ONE_DEVICE, base=base, accumulate=accumulate)
        batch = stack_examples(make_examples(1) * rows)
        return step(new_state(adapters, optimizer, ONE_DEVICE), batch)[1]["loss"]

    assert abs(loss(1, 1) - loss(3, 3)) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10, "accumulate": 4}, r"train.accumulate \(4\) must divide .*\(10\)"),
        ({"accumulate": 0}, "train.accumulate must be at least 1"),
        ({"logits_mib": 0}, "train.logits_mib must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        Training(**changes)
