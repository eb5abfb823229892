"""Values of all rows together, however they are cut into batches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.config import Guidance
from cat_jax.data.alignment import Example
from cat_jax.data.batches import stack_examples
from cat_jax.data.bitset import encode_mask, mask_counts
from cat_jax.data.packing import pack_examples
from cat_jax.evaluation import make_validation
from cat_jax.losses import attention_guidance_loss
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.sharding import MeshShape, make_mesh

VOCAB = 29
MODEL = CausalLM(
    ModelConfig(
        VOCAB, width=12, mlp_width=20, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6
    )
)
MESH = make_mesh(MeshShape(), batch_size=1)
LENGTHS = (3, 11, 5, 7, 2, 9, 4)


def make_example(number, length, density):
    rng = np.random.default_rng(number)
    tokens = rng.integers(1, VOCAB, length).astype(np.int32)
    bits = encode_mask(np.tril(rng.random((length, length)) < density))
    return Example(tokens, rng.random(length) < 0.6, *bits, *mask_counts(*bits))


@pytest.fixture(scope="module")
def params():
    start = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return jax.tree.map(lambda x: 3 * x if x.ndim > 2 else x, start)  # far from uniform attention


@pytest.fixture(scope="module")
def examples():
    """Every second row is annotated."""
    return [make_example(n, size, 0.3 * (n % 2)) for n, size in enumerate(LENGTHS)]


def validate(params, examples, guidance=None, batch_size=3):
    options = {"batch_size": batch_size, "logits_mib": 4}
    return make_validation(MODEL, examples, MESH, guidance, **options)(params)


@pytest.fixture(scope="module")
def everything(params, examples):
    """Logits and mass of all rows in one batch."""
    batch = stack_examples(examples)
    bits = {"q_bits": batch.q_bits_BTW, "k_bits": batch.k_bits_BTW}
    logits, aux = jax.jit(MODEL.apply)({"params": params}, batch.tokens_BT, **bits)
    return np.asarray(logits, np.float64), aux.mass, batch


@pytest.mark.parametrize("batch_size", [3, 10])
def test_every_token_weighs_the_same(params, examples, everything, batch_size):
    values = validate(params, examples, batch_size=batch_size)
    logits_BTV, _, _ = everything
    loss = hits = count = 0
    for logits_TV, example in zip(logits_BTV, examples, strict=True):
        labels_T, counted_T = example.tokens[1:], example.target_mask[1:]
        logits_TV = logits_TV[: len(labels_T)]
        chosen_T = logits_TV[np.arange(len(labels_T)), labels_T]
        loss += (np.log(np.exp(logits_TV).sum(-1)) - chosen_T)[counted_T].sum()
        hits += (logits_TV.argmax(-1) == labels_T)[counted_T].sum()
        count += counted_T.sum()
    np.testing.assert_allclose(values["next_token_loss"], loss / count, rtol=1e-6)
    np.testing.assert_allclose(values["token_accuracy"], hits / count, rtol=1e-6)
    np.testing.assert_allclose(values["perplexity"], math.exp(loss / count), rtol=1e-5)
    assert "guidance_loss" not in values


def test_guidance_and_mass_are_those_of_all_annotated_rows(params, examples, everything):
    guidance = Guidance(form="mass_nll", scope="head", layers=(0, 2))
    values = validate(params, examples, guidance, batch_size=2)
    _, mass, batch = everything
    loss, metrics = attention_guidance_loss(
        mass,
        batch.causal_count_BT,
        batch.visible_count_BT,
        form="mass_nll",
        scope="head",
        layers=(0, 2),
    )
    np.testing.assert_allclose(values["guidance_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(values["causal_mass"], metrics["causal_mass"], rtol=1e-5)
    assert 0.05 < values["causal_mass"] < 0.95


def test_packed_rows_have_the_same_values(params, examples):
    packed = pack_examples(examples, length=16, seed=0)
    assert len(packed) < len(examples)
    assert validate(params, packed) == pytest.approx(validate(params, examples), rel=1e-5)


def test_rows_without_annotation_have_no_mass(params, examples):
    values = validate(params, examples[::2], Guidance())
    assert values.keys() == {"next_token_loss", "token_accuracy", "perplexity"}
