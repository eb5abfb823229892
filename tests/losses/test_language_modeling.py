"""Cross entropy on the answer against torch, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.losses import LogitBudget, budgeted_next_token_sums, next_token_loss, next_tokens


def test_equals_torch_in_value_and_gradient():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits_BTV = rng.normal(size=(3, 5, 11)).astype(np.float32)
    tokens_BT = rng.integers(0, 11, (3, 5)).astype(np.int32)
    target_BT = rng.random((3, 5)) < 0.5
    target_BT[:, 0] = True  # nothing predicts it, so it must not count

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


@pytest.mark.parametrize("targets", [None, 6, 7, 8])
@pytest.mark.parametrize("tokens", [1, 5, 7, 21, 99, None])
def test_a_budget_of_logits_changes_nothing(tokens, targets):
    """Three sequences of seven positions, cut evenly, unevenly and not at all."""
    rng = np.random.default_rng(1)
    hidden_BTD, output_DV = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 7, 5), (5, 11))
    )
    tokens_BT = rng.integers(0, 11, (3, 7)).astype(np.int32)
    target_BT = rng.random((3, 7)) < 0.5
    segments_BT = np.sort(rng.integers(1, 4, (3, 7))).astype(np.int32)

    budget = LogitBudget(tokens, targets)
    assert target_BT[:, 1:].sum(1).max() <= 6

    def plain(hidden_BTD, output_DV):
        logits_BTV = hidden_BTD @ output_DV
        return next_token_loss(logits_BTV, tokens_BT, target_BT, segments_BT)

    def chunked(hidden_BTD, output_DV):
        labels = next_tokens(tokens_BT, target_BT, segments_BT)
        sums = budgeted_next_token_sums(
            lambda hidden_ND: hidden_ND @ output_DV, hidden_BTD, *labels, budget
        )
        return sums.loss.value, {"token_accuracy": sums.accuracy.value}

    expected, ours = (
        jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(hidden_BTD, output_DV)
        for f in (plain, chunked)
    )
    assert 0 < expected[0][1]["token_accuracy"] < 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


def test_no_token_is_predicted_across_a_border():
    logits_BTV = jnp.asarray(np.random.default_rng(2).normal(size=(1, 5, 4)), jnp.float32)
    tokens_BT = np.int32([[0, 1, 2, 3, 1]])
    loss, _ = next_token_loss(logits_BTV, tokens_BT, tokens_BT >= 0, np.int32([[1, 1, 2, 2, 0]]))
    log_probs_TV = jax.nn.log_softmax(logits_BTV[0])
    np.testing.assert_allclose(loss, -(log_probs_TV[0, 1] + log_probs_TV[2, 3]) / 2, rtol=1e-6)
