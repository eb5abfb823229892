"""The penalty on input gradients: against torch's double backward, packed, in parts, trained."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cat_jax as cat
from cat_jax.config import InputGradient
from cat_jax.data.alignment import Example
from cat_jax.data.batches import stack_examples
from cat_jax.data.bitset import mask_counts
from cat_jax.data.packing import pack_examples
from cat_jax.errors import InputError
from cat_jax.losses import LogitBudget
from cat_jax.losses.input_gradient import penalised_tokens
from cat_jax.losses.objective import combined_loss, compute_metrics, denominators
from cat_jax.models import CausalLM, ModelConfig, load_pretrained
from cat_jax.testing import toy_model, toy_records
from cat_jax.train.step import accumulated_gradient
from pallas_kernels import select_implementation, unsupported_reason

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V = 17
BUDGET = LogitBudget(tokens=5)
WEIGHT = InputGradient(weight=0.3)
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
close = partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)


def record(length, seed, annotated=True):
    """The last two tokens are the answer; two of the others are its causes."""
    rng = np.random.default_rng(seed)
    positions = np.arange(length)
    causes = rng.choice(length - 2, 2, replace=False)
    q_bits = ((positions >= length - 3) & annotated).astype(np.uint32)[:, None]
    k_bits = (np.isin(positions, causes) & annotated).astype(np.uint32)[:, None]
    tokens = rng.integers(0, V, length).astype(np.int32)
    return Example(tokens, positions >= length - 2, q_bits, k_bits, *mask_counts(q_bits, k_bits))


RECORDS = [record(7, 0), record(4, 1), record(9, 2, annotated=False), record(6, 3), record(5, 4)]


def penalty_in_torch(model, examples):
    """One record at a time, by double backward; the mean over annotated records."""
    found = []
    for example in examples:
        if not example.causal_count.any():
            continue
        tokens = torch.tensor(example.tokens.astype(np.int64))
        embedded = model.get_input_embeddings()(tokens)[None]
        logits = model(inputs_embeds=embedded).logits[0, :-1]
        answer = torch.tensor(example.target_mask[1:])
        losses = torch.nn.functional.cross_entropy(
            logits[answer], tokens[1:][answer], reduction="none"
        )
        (gradient,) = torch.autograd.grad(losses.sum(), embedded, create_graph=True)
        unannotated = ~example.target_mask & ~example.k_bits.any(-1)
        found.append(gradient[0][torch.tensor(unannotated)].square().sum())
    return torch.stack(found).mean()


def test_penalty_and_its_gradient_are_those_of_torch(tmp_path):
    sizes = {"hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2, "head_dim": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=V, **sizes, **heads, initializer_range=0.4)
    config._attn_implementation = "eager"  # the other one has no second derivative
    reference = transformers.LlamaForCausalLM(config)
    reference.save_pretrained(tmp_path)
    expected = penalty_in_torch(reference, RECORDS)
    expected.backward()
    squares = sum(p.grad.square().sum() for p in reference.parameters() if p.grad is not None)

    config, params = load_pretrained(tmp_path)
    model, batch = CausalLM(dataclasses.replace(config, attention="xla")), stack_examples(RECORDS)

    def penalty(params):
        _, sums = combined_loss(model, params, batch, None, 0, budget=BUDGET, regularizer=WEIGHT)
        return sums.input_gradient.value

    compiled = jax.jit(jax.value_and_grad(penalty), compiler_options=QUICK_COMPILE)
    value, gradient = compiled(params)
    assert value > 0.01
    close(value, expected.item())
    close(gradient["embed"]["embedding"], reference.get_input_embeddings().weight.grad, atol=1e-4)
    ours = sum(float(jnp.square(x).sum()) for x in jax.tree.leaves(gradient))
    close(ours, squares.item(), rtol=2e-3)


MODEL = CausalLM(ModelConfig(V, 8, 12, 2, 4, 2, 6))
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
PARAMS["embed"]["embedding"] *= 30  # of size 1, or the first norm would magnify rounding


@partial(jax.jit, static_argnums=1, compiler_options=QUICK_COMPILE)
def in_parts(batch, parts, params=PARAMS):
    """Gradient and metrics of a batch, from so many micro-batches."""
    counts = denominators(batch, None, WEIGHT)

    def loss(params, batch, number):
        return combined_loss(
            MODEL, params, batch, None, 0.0, budget=BUDGET, counts=counts, regularizer=WEIGHT
        )

    gradient, sums = accumulated_gradient(loss, params, batch, parts)
    return gradient, compute_metrics(sums, 0.0, WEIGHT)


def test_parts_and_packed_sequences_are_the_records_alone():
    records = [*RECORDS, record(8, 5)]
    alone, halves = (in_parts(stack_examples(records), parts) for parts in (1, 2))
    jax.tree.map(close, halves, alone)
    packed = pack_examples(records, length=16, seed=0)
    assert len(packed) < len(records)
    batch = stack_examples(packed)
    jax.tree.map(close, in_parts(batch, 1), alone)
    # By their tokens: which are penalised does not depend on packing either.
    alone_batch = stack_examples(records)
    counted = [
        np.bincount(x.tokens_BT[np.asarray(penalised_tokens(x))], minlength=V)
        for x in (batch, alone_batch)
    ]
    np.testing.assert_array_equal(*counted)
    metrics = alone[1]
    close(metrics["loss"], metrics["next_token_loss"] + 0.3 * metrics["input_gradient"])


def test_without_an_annotation_the_penalty_is_unknown():
    _, metrics = in_parts(stack_examples([record(9, 0, annotated=False)] * 6), 1)
    assert np.isnan(metrics["input_gradient"])
    close(metrics["loss"], metrics["next_token_loss"])


def test_training_lowers_it(tmp_path):
    """With weight 0 it is measured alone; with one it is lower, at the same records."""
    model, train = toy_model(), cat.Training(steps=12, batch_size=8, log_every=1)
    measured, penalised = (
        cat.fit(
            model,
            toy_records(count=16),
            regularizer=InputGradient(weight=weight),
            train=train,
            optimizer=cat.Optimizer(learning_rate=3e-3, schedule="constant"),
            workdir=tmp_path / str(weight),
        )
        for weight in (0.0, 1e-2)
    )
    first, last = ([r.history[n]["input_gradient"] for r in (measured, penalised)] for n in (0, -1))
    np.testing.assert_allclose(*first, rtol=1e-5)
    assert last[1] < 0.5 * last[0]
    with pytest.raises(InputError, match=r"regularizer\.weight: 0.01 there, 0.02 now"):
        cat.fit(
            model,
            toy_records(count=16),
            regularizer=InputGradient(weight=0.02),
            train=train,
            optimizer=cat.Optimizer(learning_rate=3e-3, schedule="constant"),
            workdir=tmp_path / "0.01",
        )


def test_what_cannot_be_differentiated_again_is_refused_before_training():
    again = {"regularizer": InputGradient(), "train": cat.Training(steps=1, batch_size=8)}
    refusal = "xla_chunked has a backward of its own, which cannot be differentiated again"
    with pytest.raises(InputError, match=f"own attention is xla_chunked, but {refusal}"):
        cat.fit(toy_model(attention="xla_chunked"), toy_records(count=8), **again)
    with pytest.raises(InputError, match=f"model.attention is xla_chunked, but {refusal}"):
        cat.fit(cat.Scratch(attention="xla_chunked"), toy_records(count=8), **again)
    assert select_implementation(4096, second_order=True).implementation == "xla"
    for name in ("xla", "augmented"):  # augmented is xla here
        assert unsupported_reason(name, second_order=True) is None
    for name in ("mosaic_gpu", "mosaic_tpu"):
        assert "cannot be differentiated again" in unsupported_reason(name, second_order=True)


def test_records_without_annotation_are_refused():
    bare = [dataclasses.replace(record, important=()) for record in toy_records(count=8)]
    with pytest.raises(InputError, match="no training record is annotated"):
        cat.fit(
            toy_model(),
            bare,
            regularizer=InputGradient(),
            train=cat.Training(steps=1, batch_size=8),
        )
