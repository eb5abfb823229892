"""Batches of which only some rows are annotated."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.config import Guidance
from cat_jax.data.pipeline import stack_examples
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.train.objective import combined_loss, metrics_of

MODEL = CausalLM(ModelConfig(13, 8, 12, 2, 4, 2, 6))


def without_annotation(example):
    bits, counts = example.q_bits, example.causal_count
    return dataclasses.replace(
        example,
        q_bits=np.zeros_like(bits),
        k_bits=np.zeros_like(bits),
        causal_count=np.zeros_like(counts),
    )


@pytest.mark.parametrize(("form", "reduce"), [("mass_nll", "row"), ("hinge", "sample")])
def test_guidance_comes_from_annotated_rows_alone(make_examples, form, reduce):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    guidance = Guidance(form=form, alpha=9.0, scope="head", reduce=reduce)
    rows = make_examples(7, length=5)
    annotated, others = rows[:3], [without_annotation(row) for row in rows[3:]]

    def guidance_part(params, batch):
        loss_of = partial(combined_loss, MODEL, params, batch, guidance, loss_chunk=9)
        with_it, terms = loss_of(gamma=1.0)
        return with_it - loss_of(gamma=0.0)[0], metrics_of(terms, 1.0)

    gradient = jax.jit(jax.grad(guidance_part, has_aux=True))
    mixed, metrics = gradient(params, stack_examples([others[0], *annotated, *others[1:]]))
    alone, expected = gradient(params, stack_examples(annotated))
    for name in ("guidance_loss", "causal_mass", "satisfied"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(mixed), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(alone)) > 0.01
    # The next-token loss is of all rows.
    assert abs(metrics["next_token_loss"] - expected["next_token_loss"]) > 1e-3
