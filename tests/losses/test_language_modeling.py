"""Cross entropy on the answer against torch, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.losses import next_token_loss


def test_equals_torch_in_value_and_gradient():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits_BTV = rng.normal(size=(3, 5, 11)).astype(np.float32)
    tokens_BT = rng.integers(0, 11, (3, 5)).astype(np.int32)
    target_BT = rng.random((3, 5)) < 0.5
    target_BT[:, 0] = True  # has no row before it, so it must not count

    logits = torch.tensor(logits_BTV, dtype=torch.float64, requires_grad=True)
    labels = np.where(target_BT, tokens_BT, -100)[:, 1:]
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 11), torch.tensor(labels.reshape(-1)).long(), ignore_index=-100
    )
    expected.backward()

    (loss, metrics), gradient = jax.value_and_grad(next_token_loss, has_aux=True)(
        jnp.asarray(logits_BTV), tokens_BT, target_BT
    )
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-6)
    hits = (logits_BTV[:, :-1].argmax(-1) == tokens_BT[:, 1:])[target_BT[:, 1:]]
    np.testing.assert_allclose(metrics["token_accuracy"], hits.mean(), rtol=1e-6)


def test_nothing_to_predict_costs_nothing():
    loss, metrics = next_token_loss(
        jnp.ones((2, 3, 7)), jnp.ones((2, 3), jnp.int32), jnp.zeros((2, 3), bool)
    )
    assert loss == 0.0
    assert metrics["token_accuracy"] == 0.0
