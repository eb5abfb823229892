"""What packing, micro-batches and chunks of logits must not change: the objective."""

import dataclasses
import math
import re
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.config import Form, Guidance, Scope
from cat_jax.data.alignment import Example
from cat_jax.data.batches import stack_examples
from cat_jax.data.bitset import mask_counts
from cat_jax.data.packing import pack_examples
from cat_jax.losses import LogitBudget
from cat_jax.losses.objective import combined_loss, compute_metrics, denominators
from cat_jax.models import Aux, CausalLM, ModelConfig
from cat_jax.train.step import accumulated_gradient

CONFIG = ModelConfig(13, 8, 12, 2, 4, 2, 6)
PARAMS = CausalLM(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
PARAMS["embed"]["embedding"] *= 30  # of size 1, or the first norm would magnify rounding
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RECORDS, ALONE, PACKED = 7, 9, 16


def record(length, seed):
    """Random tokens, targets (the first token, too) and annotation bits."""
    rng = np.random.default_rng(seed)
    q_bits, k_bits = np.bitwise_and.reduce(
        rng.integers(0, 2**32, (4, 2, length, 1), np.uint32), axis=0
    )
    target_mask = rng.random(length) < 0.5
    target_mask[0] = True
    tokens = rng.integers(0, CONFIG.vocab_size, length).astype(np.int32)
    return Example(tokens, target_mask, q_bits, k_bits, *mask_counts(q_bits, k_bits))


def padded(examples, rows, length):
    """A batch of one shape, whatever the examples."""
    batch = stack_examples(examples)

    def pad(x):
        widths = [(0, rows - x.shape[0]), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths)

    return jax.tree.map(pad, batch)


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_COMPILE)
def packed_or_alone(attention, guidance, batch):
    """Everything that packing must leave as it is, and the mass of each position."""
    model = CausalLM(dataclasses.replace(CONFIG, attention=attention))

    def loss(params):
        loss, sums = combined_loss(model, params, batch, guidance, 0.7, budget=LogitBudget(5))
        return loss, compute_metrics(sums, 0.7)

    _, aux = model.apply(
        {"params": PARAMS},
        batch.tokens_BT,
        q_bits=batch.q_bits_BTW,
        k_bits=batch.k_bits_BTW,
        segment_ids=batch.segment_ids_BT,
        positions=batch.positions_BT,
    )
    return jax.value_and_grad(loss, has_aux=True)(PARAMS), aux.mass


@pytest.mark.parametrize(
    ("attention", "guidance"),
    [
        ("xla", Guidance(form="hinge", alpha=3.0, reduce="row")),
        ("xla", Guidance(form="div", alpha=2.5, scope="layer", reduce="sample")),
        ("xla_chunked", Guidance(form="mass_nll", scope="head", reduce="row")),
        ("xla_chunked", Guidance(form="nll", alpha=4.0, scope="head", reduce="sample")),
    ],
)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, ALONE), min_size=RECORDS, max_size=RECORDS),
    seed=st.integers(0, 99),
)
def test_packed_sequences_equal_the_records_alone(attention, guidance, lengths, seed):
    records = [record(length, seed + 100 * n) for n, length in enumerate(lengths)]
    packed = pack_examples(records, length=PACKED, seed=seed)
    (value, gradient), mass = packed_or_alone(attention, guidance, padded(packed, RECORDS, PACKED))
    (value_alone, gradient_alone), mass_alone = packed_or_alone(
        attention, guidance, padded(records, RECORDS, ALONE)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, (value, gradient), (value_alone, gradient_alone))

    numbers = [
        dataclasses.replace(x, tokens=np.full_like(x.tokens, n)) for n, x in enumerate(records)
    ]
    for row, which in enumerate(pack_examples(numbers, length=PACKED, seed=seed)):
        rows, places = np.arange(len(which.tokens)), (which.tokens, which.positions)
        close(mass[:, row][..., rows], np.moveaxis(mass_alone, 2, 1)[:, :, *places], atol=1e-6)


def test_nothing_predicts_the_first_token_of_a_record():
    """The packed batch has the targets of the records, of which none is a first token."""
    records = [record(4, 1), record(3, 2)]
    batch = stack_examples(pack_examples(records, length=7, seed=0))
    assert batch.target_mask_BT[0, [0, 4]].all()
    _, sums = combined_loss(CausalLM(CONFIG), PARAMS, batch, None, 0.0, budget=LogitBudget(9))
    assert sums.next_token.loss.count == sum(x.target_mask[1:].sum() for x in records)


class Table:
    """Stands for a model: a vector and a mass per token, both parameters. It compiles at once."""

    config, partition = CONFIG, None

    def apply(self, variables, x, *, method, **inputs):
        params = variables["params"]
        if method == "logits":
            return x @ params["unembed"]
        aux = Aux(jax.nn.sigmoid(params["mass"][:, :, x].swapaxes(1, 2)))
        return params["in"][x], aux


TABLE_MODEL = Table()
TABLE = {
    name: jax.random.normal(jax.random.key(n), shape)
    for n, (name, shape) in enumerate(
        {"in": (13, 5), "unembed": (5, 13), "mass": (2, 3, 13)}.items()
    )
}


def gradient_in_parts(model, params, batch, guidance, parts):
    """Loss, gradient and metrics, from so many micro-batches."""
    counts = denominators(batch, guidance)

    def loss(params, batch, number):
        return combined_loss(
            model, params, batch, guidance, 0.6, budget=LogitBudget(5), counts=counts
        )

    gradient, sums = accumulated_gradient(loss, params, batch, parts)
    return gradient, compute_metrics(sums, 0.6)


compiled_in_parts = jax.jit(
    gradient_in_parts, static_argnums=(0, 3, 4), compiler_options=QUICK_COMPILE
)


def batch_with_an_unannotated_part(packed):
    """Six sequences; 0 and 3, which are the first of three parts, have no annotation."""
    records = [record(2 + n % 5, n) for n in range(12)]
    if not packed:
        batch = padded(records[:6], 6, 8)
    else:
        batch = padded(pack_examples(records, length=8, seed=0), 12, 8)
        batch = jax.tree.map(lambda x: x[:6], batch)
    bare = np.arange(6) % 3 == 0
    counts = np.where(bare[:, None], 0, batch.causal_count_BT)
    assert counts[1::3].any()
    assert counts[2::3].any()
    bits = np.where(bare[:, None, None], np.uint32(0), batch.q_bits_BTW)
    return batch._replace(causal_count_BT=counts, q_bits_BTW=bits)


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_COMPILE)
def every_scope(form, reduce, batch):
    """By scope, of the whole batch and of three parts."""
    guidances = [Guidance(form=form, alpha=2.2, scope=s, reduce=reduce) for s in get_args(Scope)]
    return [
        [gradient_in_parts(TABLE_MODEL, TABLE, batch, guidance, parts) for parts in (1, 3)]
        for guidance in guidances
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reduce", "packed"), [("row", False), ("sample", False), ("sample", True)]
)
@pytest.mark.parametrize("form", get_args(Form))
def test_parts_add_up_for_every_guidance(form, reduce, packed):
    batch = batch_with_an_unannotated_part(packed)
    for whole, parts in every_scope(form, reduce, batch):
        close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
        jax.tree.map(close, parts, whole)
        assert whole[1]["guidance_loss"] != 0


@pytest.mark.parametrize("guidance", [None, Guidance(), Guidance(form="hinge", reduce="sample")])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_add_up_in_the_model(guidance, parts):
    batch = batch_with_an_unannotated_part(packed=True)
    whole, in_parts = (
        compiled_in_parts(CausalLM(CONFIG), PARAMS, batch, guidance, n) for n in (1, parts)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, in_parts, whole)


@pytest.mark.slow
def test_parts_save_memory():
    batch = padded([record(9, n) for n in range(16)], 16, 64)
    model = CausalLM(dataclasses.replace(CONFIG, attention="xla_chunked"))
    one, eight = (
        compiled_in_parts.lower(model, PARAMS, batch, Guidance(), n).compile().memory_analysis()
        for n in (1, 8)
    )
    assert eight.temp_size_in_bytes < 0.3 * one.temp_size_in_bytes


VOCABULARY = 151_936


def largest_float(program):
    """Numbers in the largest float32 array of a compiled program."""
    sizes = re.findall(r"\bf32\[([\d,]+)\]", program.as_text())
    return max(math.prod(map(int, size.split(","))) for size in sizes)


@pytest.mark.parametrize("tied", [True, False])
def test_no_array_holds_the_logits_of_all_positions(tied):
    rows, length, chunk = 2, 384, 32
    config = ModelConfig(
        VOCABULARY, 16, 12, 1, 2, 1, 4, tie_embeddings=tied, attention="xla_chunked"
    )
    model = CausalLM(config)
    batch = padded([record(9, n) for n in range(rows)], rows, length)
    params = jax.eval_shape(model.init, jax.random.key(0), batch.tokens_BT)["params"]

    def compiled(tokens):
        budget = LogitBudget(rows * tokens)

        def loss(params, batch):
            return combined_loss(model, params, batch, Guidance(), 0.3, budget=budget)[0]

        return jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()

    whole, chunked = compiled(length), compiled(chunk)
    assert largest_float(whole) >= rows * length * VOCABULARY
    assert largest_float(chunked) == rows * chunk * VOCABULARY
    logits = 4 * VOCABULARY * rows
    assert whole.memory_analysis().temp_size_in_bytes >= logits * length
    # The logits of a chunk, their gradient, and gradients of the output matrix [16, V].
    assert (
        chunked.memory_analysis().temp_size_in_bytes < 3 * logits * chunk + 3 * 4 * VOCABULARY * 16
    )
