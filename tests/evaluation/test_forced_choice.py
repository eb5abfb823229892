"""Forced choice against log-probabilities that are summed token by token."""

import jax
import numpy as np
import pytest
from scipy import special

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation import find_choices, force_choice
from cat_jax.testing import toy_model

MODEL = toy_model(seed=3)
TALK = Conversation((Message("user", "a"), Message("assistant", "b")))
forward = jax.jit(lambda ids: MODEL.model.apply({"params": MODEL.params}, ids)[0])
CHOICES = ("yes", "no", "not at all")


def log_probability(prompt, choice):
    """Sum over the choice's characters, each of which is a token, one forward pass for each."""
    total = 0.0
    for n in range(len(choice)):
        ids = MODEL.tokenizer(prompt + choice[:n]).input_ids
        padded = np.array([ids + [0] * (64 - len(ids))])  # later tokens change nothing
        logits = forward(padded)[0, len(ids) - 1]
        token = MODEL.tokenizer.convert_tokens_to_ids(choice[n])
        total += float(logits[token] - special.logsumexp(logits))
    return total


def test_the_most_likely_answer_is_chosen():
    prompts = ["Is it? ", "Are 2 and 3 alike, or 5 and 7? "]
    records = [Record(prompt, "never read") for prompt in prompts]
    found = force_choice(MODEL, records, CHOICES, batch_size=4)
    expected = [[log_probability(prompt, choice) for choice in CHOICES] for prompt in prompts]
    np.testing.assert_allclose(found.log_probabilities_RC, expected, rtol=1e-5)
    assert found.answers == [CHOICES[int(np.argmax(row))] for row in expected]


def test_few_answers_are_found_among_records():
    records = [Record(f"{n} ", "no " if n % 3 else "yes") for n in range(7)]
    assert find_choices(records) == ("no", "yes")
    assert find_choices([*records, TALK]) is None
    assert find_choices(records[1:3]) is None  # one answer is no choice
    assert find_choices([Record("a ", str(n)) for n in range(8)]) is None  # none occurs twice
    assert find_choices([Record("a ", str(n % 11)) for n in range(99)]) is None
    assert find_choices([Record("a ", str(n % 10)) for n in range(99)]) == tuple("0123456789")


@pytest.mark.parametrize(
    ("records", "choices", "message"),
    [
        ([Record("a ", "b")], ["b"], "two at least, not b"),
        ([Record("a ", "b")], ["b", "c", "b"], "different answers"),
        ([], ["b", "c"], "there is none"),
        ([TALK], ["b", "c"], "a record is a conversation"),
        ([Record("a" * 3000, "b")], ["b", "c"], "2 of 2 records .* longer than 2048 tokens"),
    ],
)
def test_what_cannot_be_chosen_from_is_said(records, choices, message):
    with pytest.raises(InputError, match=message):
        force_choice(MODEL, records, choices)
