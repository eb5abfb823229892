from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.analysis import attention_maps
from cat_jax.data.alignment import Example, align_records
from cat_jax.data.bitset import encode_mask, mask_counts
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.evaluation import answers, causal_mass, changed_answers, exact_match
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.tasks.stg import stg_records

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


RECORDS = list(islice(stg_records(seed=0, prefix=False), 5))
TOKENIZER = train_tokenizer(record.text for record in RECORDS)


def answering_model():
    """A random model that often, but not always, ends its answer."""
    model = CausalLM(ModelConfig(len(TOKENIZER), 16, 24, 2, 2, 2, 8))
    params = random_params(model, scale=2.0)
    kernel_DV = params["unembed"]["kernel"]
    params["unembed"]["kernel"] = kernel_DV.at[:, TOKENIZER.eos_token_id].multiply(4.0)
    return model, params


def naive_answer(forward, prompt, limit):
    """The text of the most likely tokens, each from a pass over all before it."""
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        padded = np.zeros((1, 40), np.int32)
        padded[0, : len(ids)] = ids
        token = int(np.asarray(forward(padded))[0, len(ids) - 1].argmax())
        if token == TOKENIZER.eos_token_id:
            break
        ids.append(token)
    return "".join(TOKENIZER.convert_ids_to_tokens(ids[len(prompt) :])), len(ids) - len(prompt)


def test_answers_equal_naive_decoding():
    model, params = answering_model()
    forward = jax.jit(lambda tokens: model.apply({"params": params}, tokens)[0])
    examples, _ = align_records(RECORDS, TOKENIZER, max_length=64)
    # Answer and end token, and four more for answers that are too long.
    limit = 2 + 4
    naive = []
    for record in RECORDS:
        prompt = TOKENIZER(record.input)["input_ids"]
        naive.append(naive_answer(forward, prompt, limit))
    lengths = [length for _, length in naive]
    assert min(lengths) < limit == max(lengths)
    assert len({text for text, _ in naive}) > 2
    assert any(text != text.strip() for text, _ in naive)
    given = answers(model, params, TOKENIZER, examples, batch_size=2)
    assert given == [text.strip() for text, _ in naive]


def test_exact_match_ignores_surrounding_space_alone():
    assert exact_match([" High Risk\n", "Low Risk"], ["High Risk", "\tLow Risk "]) == 1.0
    given = ["High  Risk", "low risk", "84", ""]
    assert exact_match(given, ["High Risk", "Low Risk", "84.0", " "]) == 0.25


def test_changed_answers_is_the_share_that_differs():
    assert changed_answers(["a", "b", " c", "d"], ["a ", "x", "c", "y"]) == 0.5
    assert changed_answers(["a"], ["a"]) == 0.0
    assert changed_answers(["a"], ["A"]) == 1.0


def test_answers_and_targets_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        exact_match(["a"], ["a", "b"])
