"""One step against the same arithmetic written out, and plain training without the statistic."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cat_jax.config import Guidance, Optimizer
from cat_jax.data.pipeline import stack_examples
from cat_jax.losses import attention_guidance_loss, next_token_loss
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import MeshShape, make_mesh
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import new_state
from cat_jax.train.step import combined_loss, make_train_step

MODEL = CausalLM(ModelConfig(13, 8, 12, 3, 4, 2, 6))
ONE_DEVICE = make_mesh(MeshShape(), batch_size=5)


@pytest.fixture
def params():
    return MODEL.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


@pytest.fixture
def batch(make_examples):
    return stack_examples(make_examples(5))


def test_combined_loss_is_the_sum_of_its_parts(params, batch):
    guidance = Guidance(form="hinge", alpha=3.0, scope="layer", layers=(1, 2))
    total, metrics = combined_loss(MODEL, params, batch, guidance, 0.3)
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
    np.testing.assert_allclose(metrics["loss"], total)


def test_a_step_follows_the_gradient(params, batch):
    optimizer = make_optimizer(Optimizer(learning_rate=0.1, warmup=0.0, clip=0.01), steps=10)
    guidance = Guidance()
    step = make_train_step(MODEL, optimizer, ONE_DEVICE, guidance, lambda step: 0.5 + step)
    state, metrics = step(new_state(params, optimizer, ONE_DEVICE), batch)

    gradient = jax.grad(lambda p: combined_loss(MODEL, p, batch, guidance, 0.5)[0])(params)
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
    loss = jax.jit(lambda params, batch: combined_loss(MODEL, params, batch, guidance, 0.5)[0])
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
