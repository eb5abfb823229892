"""A record alone and in a batch: the same numbers in float32, a spread in bfloat16.

``python -m pytest -s tests/train/test_batch_spread.py`` prints what docs/finetuning.md reports.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.data.batches import stack_examples
from cat_jax.data.records import Record
from cat_jax.losses import next_token_loss
from cat_jax.models import CausalLM, load_language_model
from cat_jax.testing import toy_model, toy_records

LIMITS = {"float32": 2e-5, "bfloat16": 0.2}
"""Largest difference of a logit that is let through, of logits of size 5."""


def logits_and_loss(model, params, examples, dtype):
    model = CausalLM(dataclasses.replace(model.config, dtype=dtype))
    batch = stack_examples(examples)
    logits, _ = jax.jit(model.apply)({"params": params}, batch.tokens_BT)
    losses = [
        float(next_token_loss(logits[n : n + 1, :length], *of(batch, n, length))[0])
        for n, length in enumerate(len(example.tokens) for example in examples)
    ]
    return logits, losses


def of(batch, n, length):
    return (x[n : n + 1, :length] for x in (batch.tokens_BT, batch.target_mask_BT))


def spread(model, params, examples, dtype):
    """Largest difference of logits and of losses between records alone and in one batch."""
    together, losses = logits_and_loss(model, params, examples, dtype)
    worst = []
    for n, example in enumerate(examples):
        alone, (loss,) = logits_and_loss(model, params, [example], dtype)
        length = len(example.tokens)
        worst.append((jnp.abs(together[n, :length] - alone[0]).max(), abs(losses[n] - loss)))
    return np.array(worst).max(0), float(jnp.abs(together).max())


@pytest.fixture(params=["toy", "stories260K"])
def language_model(request):
    if request.param == "toy":
        return toy_model(width=64, mlp_width=172, num_heads=4, head_dim=16)
    return load_language_model(request.getfixturevalue("shared") / "models/stories260K")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMITS)
def test_a_record_alone_and_in_a_batch(language_model, dtype, request):
    model, params = language_model.model, language_model.params
    records = toy_records(count=11)
    longer = [Record(r.input * (1 + n % 5), r.target) for n, r in enumerate(records)]
    examples, _ = align_records(longer, language_model.tokenizer, max_length=512)
    assert len({len(example.tokens) for example in examples}) > 3
    (logits, loss), size = spread(model, params, examples, dtype)
    print(f"\n{request.node.name}: logits {logits:.1e} (of {size:.1f}), loss {loss:.1e}")
    assert logits < LIMITS[dtype] * max(size, 1) / 5
    assert loss < LIMITS[dtype]
