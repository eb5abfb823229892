import dataclasses
from importlib import import_module
from itertools import islice

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_tokenizers import KINDS, small_tokenizer
from transformers import AutoTokenizer

from cat_jax.data.alignment import align_records
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Record
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.evaluation import answer_matches, answers, changed_answers, exact_match
from cat_jax.evaluation.answers import answer_range
from cat_jax.models import CausalLM, ModelConfig
from cat_jax.tasks.stg import stg_records
from cat_jax.testing import TURN_END, toy_model, toy_tokenizer

# In its package, a function of the same name hides the module.
ANSWERS = import_module("cat_jax.evaluation.answers")


def random_params(model, scale=1.0):
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return jax.tree.map(lambda x: scale * x if x.ndim > 2 else x, params)


SHARED = ("models/stories260K", "tokenizers/llama2", "tokenizers/qwen2.5")
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
    found = answers(model, params, TOKENIZER, examples, batch_size=2)
    assert found == [text.strip() for text, _ in naive]


def test_exact_match_ignores_surrounding_space_alone():
    assert exact_match([" High Risk\n", "Low Risk"], ["High Risk", "\tLow Risk "]) == 1.0
    others = ["High  Risk", "low risk", "84", ""]
    assert exact_match(others, ["High Risk", "Low Risk", "84.0", " "]) == 0.25


def test_changed_answers_is_the_share_that_differs():
    assert changed_answers(["a", "b", " c", "d"], ["a ", "x", "c", "y"]) == 0.5
    assert changed_answers(["a"], ["a"]) == 0.0
    assert changed_answers(["a"], ["A"]) == 1.0


def test_answers_and_targets_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        exact_match(["a"], ["a", "b"])


TOY = toy_tokenizer()
CHAT = Conversation(
    (
        Message("user", "a=3?"),
        Message("assistant", "3"),
        Message("user", "b=7 b?"),
        Message("assistant", "it is 7"),
    )
)


def test_the_answer_of_a_conversation_is_its_last_turn():
    (example,), _ = align_records([CHAT], TOY, max_length=200)
    found = answer_range(example)
    assert TOY.decode(example.tokens[list(found)]) == f"it is 7{TURN_END}"
    prompt = TOY.decode(example.tokens[: found.start])
    assert prompt.endswith("user: b=7 b?<turn_end>assistant: ")
    assert example.target_mask[: found.start].any()  # the first answer is trained, too


@pytest.mark.parametrize(
    ("text", "right"),
    [("it is 7", True), (" it is 7\n", True), ("it is 7.", False), ("It is 7", False), ("", False)],
)
def test_an_answer_matches_but_for_surrounding_space(text, right):
    (example,), _ = align_records([CHAT], TOY, max_length=200)
    ids = TOY(text, add_special_tokens=False).input_ids
    assert answer_matches(ids, example, TOY) is right
    assert answer_matches([*ids, TOY.eos_token_id], example, TOY) is right


@pytest.fixture(scope="module", params=[*KINDS, *SHARED])
def tokenizer(request):
    if request.param in KINDS:
        return small_tokenizer(request.param)
    return AutoTokenizer.from_pretrained(request.getfixturevalue("shared") / request.param)


CHARACTERS = st.sampled_from("AHehiR8 .,?'\n\té\u0301日本ﬁ①Å😀")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(prompt=TEXTS, target=TEXTS | st.tuples(TEXTS, TEXTS).map("</s>".join), other=TEXTS)
@hypothesis.example("8 Answer: ", "Is it not ? High , it 's", "Is it not ?")
@hypothesis.example("Answer: ", "caf\u0065\u0301 ﬁn ①", "x")
@hypothesis.example("Answer:", "</s>", "a")
@hypothesis.example("日本", "日本語", "日")
@hypothesis.example("Hel", "lo", "l")
@hypothesis.example("a", "<s>b", "b")
def test_the_tokens_of_the_right_answer_are_right(tokenizer, prompt, target, other):
    def gold(target):
        (found,), _ = align_records([Record(prompt, target)], tokenizer, max_length=99)
        return found, found.tokens[list(answer_range(found))].tolist()

    example, ids = gold(target)
    assume(tokenizer.unk_token_id not in ids)
    # As ``generate`` gives them: up to the first end token.
    given = ids[: ids.index(tokenizer.eos_token_id)]
    assert answer_matches(given, example, tokenizer)
    assert answer_matches(ids, example, tokenizer)
    _, others = gold(other)
    others = others[: others.index(tokenizer.eos_token_id)]
    said, wanted = tokenizer.decode(others), tokenizer.decode(given)
    if tokenizer.unk_token_id not in others:
        assert answer_matches(others, example, tokenizer) is (said.strip() == wanted.strip())


def test_special_tokens_of_the_right_answer_count():
    tokenizer = small_tokenizer("byte_level")
    (example,), _ = align_records([Record("a ", "<s>b")], tokenizer, max_length=99)
    assert answer_matches(tokenizer("<s>b").input_ids, example, tokenizer)
    assert not answer_matches(tokenizer("b").input_ids, example, tokenizer)
    (example,), _ = align_records([Record("a ", "b")], tokenizer, max_length=99)
    assert answer_matches(tokenizer("<s>b").input_ids, example, tokenizer)


def test_an_unknown_right_answer_is_never_matched():
    record = dataclasses.replace(RECORDS[0], target="Å", important=())
    (example,), _ = align_records([record], TOKENIZER, max_length=64)
    assert not answer_matches([TOKENIZER.unk_token_id], example, TOKENIZER)
    assert not answer_matches([], example, TOKENIZER)


def test_an_answer_ends_with_its_turn():
    """The end token of the tokenizer is another one."""
    toy = toy_model()
    examples, _ = align_records([CHAT], TOY, max_length=200)
    position = answer_range(examples[0]).start - 1
    hidden_BTD, _ = toy.model.apply(
        {"params": toy.params}, examples[0].tokens[None], method="hidden_states"
    )
    kernel_DV = jnp.zeros_like(toy.params["unembed"]["kernel"])

    def answer(token):
        """Of the model whose likeliest next token this is."""
        column = kernel_DV.at[:, TOY.convert_tokens_to_ids(token)].set(hidden_BTD[0, position])
        return answers(toy.model, {**toy.params, "unembed": {"kernel": column}}, TOY, examples)[0]

    assert answer(TURN_END) == answer(TOY.eos_token) == ""
    assert answer("7").startswith("7")


def test_all_ends_of_a_model_end_an_answer(monkeypatch):
    """Those of the model, of the tokenizer and of every turn that is trained."""
    seen = []
    monkeypatch.setattr(ANSWERS, "generate", lambda *a, stop_ids, **k: seen.append(stop_ids) or [])
    examples, _ = align_records([CHAT, Record("a", "b")], TOY, max_length=200)
    answers(None, None, TOY, examples, end_ids=(9, 5))
    turn_end = TOY.convert_tokens_to_ids(TURN_END)
    assert seen == [tuple(sorted({TOY.eos_token_id, turn_end, 9, 5}))]
    answers(None, None, TOY, examples[1:])
    assert seen[1] == (TOY.eos_token_id,)
