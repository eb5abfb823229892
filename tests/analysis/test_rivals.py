"""Gradients by attention, and what is made of them, against torch and finite differences."""

import jax.numpy as jnp
import numpy as np
import pytest

import cat_jax as cat
from cat_jax.analysis import read_attention
from cat_jax.analysis.attention import (
    attention_rollout,
    gradient_rollout,
    gradient_weighted,
    read_gradients,
)
from cat_jax.data.alignment import align_records
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.likelihood import answer_log_probabilities
from cat_jax.models import KEYS_VALUES, save_pretrained
from cat_jax.models.edits import OFFSETS

TOY = cat.testing.toy_model(num_layers=3, num_heads=4, num_kv_heads=2)
RECORD = Record("a=3 b=4 a is ", "3!")


def read(record=RECORD, **options):
    return read_attention(TOY.model, TOY.params, TOY.tokenizer, record, **options)


@pytest.fixture(scope="module")
def torch_pair(tmp_path_factory):
    """Attention of torch, [N, H, T, T], and the gradient of the answer's log-probability by it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_pretrained(folder, TOY.model.config, TOY.params, TOY.tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    (example,), _ = align_records([RECORD], TOY.tokenizer, max_length=99)
    ids = torch.tensor(example.tokens.astype(int))[None]
    output = model(ids, output_attentions=True)
    for probs in output.attentions:
        probs.retain_grad()
    log = output.logits[0].log_softmax(-1)
    rows = np.flatnonzero(example.target_mask)
    sum(log[n - 1, ids[0, n]] for n in rows).backward()
    maps, slopes = (
        np.stack([x.detach()[0].numpy() for x in found])
        for found in (output.attentions, [probs.grad for probs in output.attentions])
    )
    return maps, np.where(np.tri(len(example.tokens), dtype=bool), slopes, 0.0)


def test_gradients_are_those_of_torch(torch_pair):
    _, expected = torch_pair
    found = read_gradients(TOY, RECORD)
    assert found.axes == ("layers", "heads", "queries", "keys")
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert abs(expected).max() > 0.01
    chosen = read_gradients(TOY, RECORD, queries=["3!", 0])
    assert chosen.queries.tolist() == [0, 12, 13]
    np.testing.assert_allclose(chosen.values, expected[:, :, [0, 12, 13]], atol=1e-5)


def test_gradients_are_finite_differences():
    """More attention from query 9 to key 4 is more of key 4's value in the head's output."""
    layer, head, query, key, step = 1, 3, 9, 4, 1e-2
    (example,), _ = align_records([RECORD], TOY.tokenizer, max_length=99)
    tokens = jnp.array([example.tokens])
    _, taps = TOY.model.apply({"params": TOY.params}, tokens, mutable=[KEYS_VALUES])
    value = taps[KEYS_VALUES]["layers"]["attention"]["value"][layer, 0, key, head // 2]

    def log_probability(size):
        added = np.zeros((3, 1, len(example.tokens), 4, 8), np.float32)
        added[layer, 0, query, head] = size * np.asarray(value)
        offsets = {OFFSETS: {"layers": {"attention": {"heads": added}}}}
        logits, _ = TOY.model.apply({"params": TOY.params} | offsets, tokens)
        log = np.asarray(logits[0], np.float64)
        log -= np.log(np.exp(log).sum(-1, keepdims=True))
        return sum(log[n - 1, example.tokens[n]] for n in np.flatnonzero(example.target_mask))

    plain = answer_log_probabilities(TOY.model, TOY.params, [example])[0]
    assert log_probability(0.0) == pytest.approx(plain, abs=1e-5)
    slope = (log_probability(step) - log_probability(-step)) / (2 * step)
    found = read_gradients(TOY, RECORD).values[layer, head, query, key]
    assert found == pytest.approx(slope, abs=2e-4)
    assert abs(slope) > 1e-3


def test_products_are_element_by_element(torch_pair):
    maps, slopes = torch_pair
    found = gradient_weighted(read(), read_gradients(TOY, RECORD))
    np.testing.assert_allclose(found.values, maps * slopes, atol=1e-5)
    by_head = found.between("3", "3!")
    assert by_head.axes == ("layers", "heads")


def test_rollout_is_the_product_of_the_layers(torch_pair):
    torch = pytest.importorskip("torch")
    expected = torch.eye(16, dtype=torch.float64)
    for layer in torch.tensor(torch_pair[0], dtype=torch.float64):
        mixed = layer.mean(0) / 2 + torch.eye(16) / 2
        expected = torch.matmul(mixed / mixed.sum(-1, keepdim=True), expected)
    found = attention_rollout(read())
    assert found.axes == ("queries", "keys")
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.values.sum(-1), 1, atol=1e-5)
    assert found.between("3", "3!").axes == ()


def test_gradient_rollout_adds_up_the_layers(torch_pair):
    torch = pytest.importorskip("torch")
    maps, slopes = (torch.tensor(x, dtype=torch.float64) for x in torch_pair)
    expected = torch.eye(16, dtype=torch.float64)
    for layer, slope in zip(maps, slopes, strict=True):
        expected = expected + (layer * slope).clamp(min=0).mean(0) @ expected
    found = gradient_rollout(read(), read_gradients(TOY, RECORD))
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-5)


def test_what_does_not_belong_together_is_refused():
    maps, slopes = read(), read_gradients(TOY, RECORD)
    other = read_gradients(TOY, Record("a=3 b=5 a is ", "3!"))
    with pytest.raises(InputError, match="maps of all layers, heads and queries"):
        attention_rollout(read(queries=[3]))
    with pytest.raises(InputError, match="maps of all layers, heads and queries"):
        attention_rollout(maps.mean("heads"))
    for combine in (gradient_weighted, gradient_rollout):
        with pytest.raises(InputError, match="not of the same text"):
            combine(maps, other)
    with pytest.raises(InputError, match="not of the same text"):
        gradient_weighted(maps.layer(0), slopes)
    for combine in (gradient_weighted, gradient_rollout):
        with pytest.raises(InputError, match="values below 0, which is no attention"):
            combine(slopes, maps)
    with pytest.raises(InputError, match="not of the same text, queries and view"):
        gradient_weighted(maps.layer(0), slopes.layer(1))
    with pytest.raises(InputError, match="values below 0, which is no attention"):
        attention_rollout(slopes)
    short = cat.testing.toy_model(max_positions=15)
    with pytest.raises(InputError, match="has 16 tokens, and the model reads 15"):
        read_gradients(short, RECORD)
