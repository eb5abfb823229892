"""Prompts against training: the ids that are fed are those before the first token of the answer."""

from string import ascii_letters
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from small_tokenizers import KINDS, small_tokenizer
from transformers import AutoTokenizer

from cat_jax.data.alignment import align_records
from cat_jax.data.prompts import encode_prompt, first_ids
from cat_jax.data.records import Record

SHARED = ("models/stories260K", "tokenizers/llama2", "tokenizers/qwen2.5")


@pytest.fixture(scope="module", params=[*KINDS, *SHARED])
def tokenizer(request):
    if request.param in KINDS:
        return small_tokenizer(request.param)
    return AutoTokenizer.from_pretrained(request.getfixturevalue("shared") / request.param)


def trained(prompt, target, tokenizer):
    """Ids of training, the index of the first answer token, and whether a token spans the border.

    The latter as the tokenizer itself says.
    """
    (found,), _ = align_records([Record(prompt, target)], tokenizer, max_length=999)
    offsets = tokenizer(prompt + target, return_offsets_mapping=True)["offset_mapping"]
    spans = any(start < len(prompt) < end for start, end in offsets)
    spans |= normalize("NFKC", prompt + target) != normalize("NFKC", prompt) + normalize(
        "NFKC", target
    )
    return found.tokens.tolist(), int(found.target_mask.argmax()), spans


CHARACTERS = st.sampled_from("AHehiR8 .,:\n\té́日本ﬁ😀?")
PROMPTS = st.text(CHARACTERS, min_size=1, max_size=12) | st.sampled_from(
    ["Smoking: 8 Answer: ", "Answer:", "Answer:\n", "The answer is  ", "a\t"]
)
TARGETS = st.text(CHARACTERS, min_size=1, max_size=8) | st.sampled_from(["High Risk", "84.0", "is"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(prompt=PROMPTS, target=TARGETS)
@example("Answer: ", "High Risk")
@example("Answer: ", "8")
@example("Answer:", " High Risk")
@example("Answer:\n", "High")
def test_prompts_have_the_ids_of_training(tokenizer, prompt, target):
    ids, answer, spans = trained(prompt, target, tokenizer)
    assume(prompt.strip() and target[:2].strip() and tokenizer.unk_token_id not in ids)
    found = encode_prompt(prompt, tokenizer)
    if not found.held:
        if not spans:
            assert found.ids == ids[:answer]
        return
    assume(target[0] in ascii_letters or not (target[0].isspace() or prompt[-2:].isspace()))
    # The whitespace is a token of its own or part of the first token of the answer.
    size = len(found.ids)
    assert size in (answer, answer - 1)
    assert found.ids == ids[:size]
    assert ids[size] in first_ids(found, tokenizer)


@pytest.mark.parametrize("name", ["byte_level", "trimmed_offsets", "appends_end", "dummy_prefix"])
def test_a_space_that_belongs_to_the_next_word_is_left_to_the_answer(name):
    tokenizer = small_tokenizer(name)
    found = encode_prompt("Answer: ", tokenizer)
    assert tokenizer.decode(found.ids, skip_special_tokens=True) == "Answer:"
    assert found.held == ("▁" if name == "dummy_prefix" else "Ġ")
    begins = first_ids(found, tokenizer)
    words = set(tokenizer.convert_ids_to_tokens(begins))
    assert {f"{found.held}{end}" for end in ("", "High", "Low")} <= words
    assert all(word.startswith(found.held) for word in words)
    others = np.setdiff1d(range(len(tokenizer)), begins).tolist()
    assert not any(w.startswith(found.held) for w in tokenizer.convert_ids_to_tokens(others))


@pytest.mark.parametrize("name", ["toy", "words"])
def test_a_space_of_its_own_stays(name):
    tokenizer = small_tokenizer(name)
    prompt = "Weight: 10 Answer: "
    found = encode_prompt(prompt, tokenizer)
    assert found.ids == tokenizer(prompt).input_ids
    assert tokenizer.decode(found.ids) == prompt
    assert found.held == ""
    assert first_ids(found, tokenizer) is None


def test_an_end_that_the_tokenizer_appends_is_no_part_of_a_prompt():
    tokenizer = small_tokenizer("appends_end")
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = small_tokenizer("byte_level")
    for text in ("The answer", "The answer\n", "", "a</s>b", "a</s>"):
        assert tokenizer(text).input_ids[-1] == end
        assert encode_prompt(text, tokenizer).ids == [bos, *plain(text).input_ids]


def test_a_text_that_begins_with_the_bos_gets_no_second_one():
    tokenizer = small_tokenizer("appends_end")
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokenizer("<s>The").input_ids[:2] == [bos, bos]
    assert encode_prompt("<s>The", tokenizer).ids == tokenizer("The").input_ids[:-1]
    assert encode_prompt("The<s>", tokenizer).ids.count(bos) == 2
    for record in (Record("<s>The ", "house</s>"), Record("", "<s>The house</s>")):
        (found,), _ = align_records([record], tokenizer, max_length=99)
        assert found.tokens.tolist() == tokenizer("The house").input_ids
        assert found.tokens.tolist().count(end) == 1


def test_a_space_alone_is_continued():
    tokenizer = small_tokenizer("byte_level")
    assert encode_prompt(" ", tokenizer).ids == tokenizer(" ").input_ids != []
    assert encode_prompt("", tokenizer).ids == []
