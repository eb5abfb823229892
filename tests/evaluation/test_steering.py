"""Steered answers against transformers, with PASTA's scaling as an additive mask."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.errors import InputError
from cat_jax.evaluation import steered_answers
from cat_jax.evaluation.answers import EXTRA_TOKENS, decode_answers
from cat_jax.models import save_pretrained
from cat_jax.testing import toy_model, toy_records

N, H = 3, 2
MODEL = toy_model(num_layers=N, num_heads=H, max_positions=64, seed=5)
RECORDS = [
    *toy_records("ood", count=2),
    dataclasses.replace(toy_records("ood", count=3)[2], important=()),
]
EXAMPLES = align_records(RECORDS, MODEL.tokenizer, max_length=64)[0]
ARGUMENTS = MODEL.model, MODEL.params, MODEL.tokenizer
START = 13


def masked(bias, module, args, options):
    return args, options | {"attention_mask": bias}


def in_torch(model, example, factor, heads, queries):
    """Scale what is no cause down, token by token."""
    torch = pytest.importorskip("torch")
    tokens = example.tokens[:START].tolist()
    causes = [2] if example.k_bits.any() else list(range(99))
    for _ in range(2 + EXTRA_TOKENS):
        size = len(tokens)
        bias = torch.zeros(N, 1, H, size, size)
        for n, h in zip(*np.nonzero(heads), strict=True):
            for i in range(0 if queries == "all" else START - 1, size):
                for j in range(size):
                    bias[n, 0, h, i, j] = 0.0 if j in causes else np.log(factor)
        bias = bias.masked_fill(~torch.tril(torch.ones(size, size, dtype=torch.bool)), -1e30)
        handles = [
            model.model.layers[n].self_attn.register_forward_pre_hook(
                partial(masked, bias[n]), with_kwargs=True
            )
            for n in range(N)
        ]
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        tokens.append(int(logits.argmax()))
    answer = tokens[START:]
    end = MODEL.tokenizer.eos_token_id
    return answer[: answer.index(end)] if end in answer else answer


@pytest.mark.parametrize("queries", ["all", "answer"])
def test_steering_is_pasta(queries, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    save_pretrained(tmp_path / "toy", MODEL.model.config, MODEL.params, MODEL.tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "toy", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    heads = np.array([[True, True], [False, True], [True, False]])
    found = steered_answers(
        *ARGUMENTS, EXAMPLES, factor=1e-3, heads=heads, queries=queries, batch_size=2
    )
    expected = [in_torch(model, x, 1e-3, heads, queries) for x in EXAMPLES]
    assert found == expected
    plain = decode_answers(*ARGUMENTS, EXAMPLES)
    assert found[2] == plain[2]  # nothing is annotated
    if queries == "all":
        assert found[:2] != plain[:2]


def test_a_factor_of_one_steers_nothing():
    assert steered_answers(*ARGUMENTS, EXAMPLES, factor=1.0) == decode_answers(*ARGUMENTS, EXAMPLES)
    assert steered_answers(*ARGUMENTS, []) == []


def test_answers_end_at_the_last_position():
    short = dataclasses.replace(MODEL.model.config, max_positions=START + 2)
    model = type(MODEL.model)(short)
    found = steered_answers(model, *ARGUMENTS[1:], EXAMPLES)
    full = steered_answers(*ARGUMENTS, EXAMPLES)
    assert found == [answer[:2] for answer in full]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"factor": 0.0}, "factor must be above 0 and finite"),
        ({"factor": np.inf}, "factor must be above 0 and finite"),
        ({"queries": "some"}, "queries must be one of all, answer"),
        ({"heads": np.ones((2, 2))}, r"one entry by layer and head, \(3, 2\)"),
    ],
)
def test_bad_steering_is_a_sentence(options, says):
    with pytest.raises(InputError, match=says):
        steered_answers(*ARGUMENTS, EXAMPLES, **options)
