import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.analysis import attention_maps
from cat_jax.data.alignment import Example
from cat_jax.data.bitset import encode_mask, mask_counts
from cat_jax.evaluation import causal_mass, measure_causal_mass, measure_right_answers
from cat_jax.models import CausalLM, ModelConfig

VOCAB = 31
MODEL = CausalLM(
    ModelConfig(
        VOCAB, width=12, mlp_width=20, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6
    )
)


def random_params(model, scale=1.0):
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return jax.tree.map(lambda x: scale * x if x.ndim > 2 else x, params)


def random_example(seed, length, density):
    """Tokens, any mask below the diagonal, and that mask."""
    rng = np.random.default_rng(seed)
    mask_TT = np.tril(rng.random((length, length)) < density)
    q_bits, k_bits = encode_mask(mask_TT)
    tokens = rng.integers(1, VOCAB, length).astype(np.int32)
    counts = mask_counts(q_bits, k_bits)
    return Example(tokens, np.arange(length) == length - 1, q_bits, k_bits, *counts), mask_TT


# The masks take one or two words; a row without any mask lies in the last batch, and nothing else
# lies there with batch_size 3. Density 1 marks whole rows, which do not count.
SAMPLES = [
    random_example(seed, length, density)
    for seed, (length, density) in enumerate(
        [(5, 0.3), (40, 0.2), (5, 0.6), (11, 0.0), (5, 1.0), (40, 0.5), (11, 0.0)]
    )
]
EXAMPLES = [example for example, _ in SAMPLES]


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL, scale=3.0)


@pytest.fixture(scope="module")
def masses(params):
    """By the definition, of every counted row: what full maps put on the mask, per sample."""
    found = []
    for example, mask_TT in SAMPLES:
        maps = attention_maps(MODEL, params, jnp.asarray(example.tokens[None]))
        map_TT = np.asarray(maps, np.float64).mean((0, 1, 2))
        visible = np.tril(np.ones_like(mask_TT))
        counted = mask_TT.any(1) & (mask_TT != visible).any(1)
        found.append((map_TT * mask_TT).sum(1)[counted])
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_causal_mass_is_the_mean_over_all_annotated_rows(params, masses, batch_size):
    assert {example.q_bits.shape[1] for example in EXAMPLES} == {1, 2}
    expected = np.concatenate(masses).mean()
    # Else the mean over samples, which is not asked for, would pass as well.
    assert abs(expected - np.mean([m.mean() for m in masses if m.size])) > 1e-2
    given = causal_mass(MODEL, params, EXAMPLES, batch_size=batch_size)
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("chosen", [[3], [4], [3, 4, 6]])
def test_causal_mass_of_nothing_annotated_is_nan(params, chosen):
    """Neither rows without a mask nor rows whose mask is all that they see are annotated."""
    assert np.isnan(causal_mass(MODEL, params, [EXAMPLES[i] for i in chosen], batch_size=2))
    chosen_mass = measure_causal_mass(MODEL, params, [EXAMPLES[i] for i in chosen])
    assert np.isnan(chosen_mass.by_head_NH).all()


@pytest.mark.parametrize("batch_size", [2, 7])
def test_causal_mass_of_each_layer_and_head(params, batch_size):
    total_NH, count = np.zeros((3, 4)), 0
    for example, mask_TT in SAMPLES:
        maps = attention_maps(MODEL, params, jnp.asarray(example.tokens[None]))
        maps_NHTT = np.asarray(maps, np.float64)[:, 0]
        visible = np.tril(np.ones_like(mask_TT))
        counted_T = mask_TT.any(1) & (mask_TT != visible).any(1)
        total_NH += (maps_NHTT * mask_TT).sum(-1)[..., counted_T].sum(-1)
        count += counted_T.sum()
    found = measure_causal_mass(MODEL, params, EXAMPLES, batch_size=batch_size)
    np.testing.assert_allclose(found.by_head_NH, total_NH / count, atol=1e-5)
    assert found.by_head_NH.std() > 1e-3
    np.testing.assert_allclose(found.mean, found.by_head_NH.mean(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 16])
def test_log_probabilities_of_right_answers(params, batch_size):
    """Of the last trained run alone: what a prompt's own trained tokens cost does not count."""
    examples, expected = [], []
    for number, example in enumerate(EXAMPLES):
        mask = np.zeros(len(example.tokens), bool)
        mask[-1 - number % 3 :] = True
        answered = np.flatnonzero(mask)
        mask[1] |= mask[2] ^ True  # a turn before
        examples.append(dataclasses.replace(example, target_mask=mask))
        logits_TV = MODEL.apply({"params": params}, example.tokens[None])[0][0]
        log_TV = np.asarray(jax.nn.log_softmax(logits_TV), np.float64)
        expected.append(sum(log_TV[t - 1, example.tokens[t]] for t in answered))
    mass, found = measure_right_answers(MODEL, params, examples, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert mass.mean == measure_causal_mass(MODEL, params, examples, batch_size=batch_size).mean
