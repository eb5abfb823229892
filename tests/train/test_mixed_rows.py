"""Batches of which only some rows are annotated."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.config import Guidance
from cat_jax.data.batches import stack_examples
from cat_jax.losses import LogitBudget
from cat_jax.losses.objective import combined_loss, compute_metrics
from cat_jax.models import CausalLM, ModelConfig

MODEL = CausalLM(ModelConfig(13, 8, 12, 1, 2, 1, 4))


def without_annotation(example):
    bits, counts = example.q_bits, example.causal_count
    return dataclasses.replace(
        example,
        q_bits=np.zeros_like(bits),
        k_bits=np.zeros_like(bits),
        causal_count=np.zeros_like(counts),
    )


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


@pytest.mark.parametrize(("form", "reduce"), [("mass_nll", "row"), ("hinge", "sample")])
def test_guidance_comes_from_annotated_rows_alone(params, make_examples, form, reduce):
    guidance = Guidance(form=form, alpha=9.0, scope="head", reduce=reduce)
    nothing = np.zeros(5, bool)  # no next tokens: what is left of the loss is guidance
    rows = [dataclasses.replace(row, target_mask=nothing) for row in make_examples(7, length=5)]
    annotated, others = rows[:3], [without_annotation(row) for row in rows[3:]]

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def gradient(params, batch):
        loss, terms = combined_loss(MODEL, params, batch, guidance, 0.7, budget=LogitBudget(9))
        return loss, compute_metrics(terms, 0.7)

    (loss, metrics), mixed = gradient(params, stack_examples([others[0], *annotated, *others[1:]]))
    (_, expected), alone = gradient(params, stack_examples(annotated))
    np.testing.assert_allclose(loss, 0.7 * expected["guidance_loss"], rtol=1e-5)
    for name in ("guidance_loss", "causal_mass", "satisfied"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(mixed), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    guided = [(row.causal_count > 0) & (row.causal_count < row.visible_count) for row in annotated]
    np.testing.assert_allclose(metrics["annotated_share"], np.sum(guided) / (7 * 5), rtol=1e-6)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(alone)) > 0.01


def test_a_batch_without_annotated_queries_has_no_mass_and_no_guidance(params, make_examples):
    batch = stack_examples([without_annotation(row) for row in make_examples(3, length=5)])
    loss, terms = combined_loss(MODEL, params, batch, Guidance(), 0.7, budget=LogitBudget(9))
    metrics = compute_metrics(terms, 0.7)
    assert metrics["annotated_share"] == 0
    np.testing.assert_allclose(metrics["loss"], loss)
    np.testing.assert_allclose(metrics["next_token_loss"], loss)
    absent = {name for name, value in metrics.items() if np.isnan(value)}
    assert absent == {"guidance_loss", "causal_mass", "attention_ratio", "satisfied"}
