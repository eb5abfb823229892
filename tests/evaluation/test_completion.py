"""Continuations of texts, against the golden story and against ``generate``."""

import dataclasses
import json

import pytest

from cat_jax.errors import InputError
from cat_jax.evaluation import Sampling, complete, generate
from cat_jax.models import load_language_model


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden/stories260K_greedy.json").read_text())


@pytest.fixture(scope="module")
def model(shared):
    return load_language_model(shared / "models/stories260K")


def test_greedy_continuations_are_the_golden_story(model, golden):
    start = golden["text"][:60]
    done = complete(model, [start, "Lily"], max_new_tokens=30)
    assert golden["text"].startswith(done.texts[0])
    assert len(done.texts[0]) > 90
    assert done.texts[1].startswith("Lily")
    assert done.new_tokens == 60
    assert done.prompt_tokens == sum(len(model.tokenizer(t).input_ids) for t in (start, "Lily"))
    assert f"60 new tokens in {done.seconds:.2f} s" in str(done)


def test_a_space_at_the_end_changes_no_continuation(model, golden):
    """It belongs to the token of the next word, as in training."""
    start = golden["text"][: golden["text"].index(" ", 60)]
    bare, spaced = complete(model, [start, f"{start} "], max_new_tokens=20).texts
    assert bare == spaced
    assert golden["text"].startswith(bare)
    assert len(bare) > len(start) + 20


def test_every_end_token_ends_an_answer(model, golden):
    start = golden["text"][:60]
    ids = model.tokenizer(start).input_ids
    (new,) = generate(model.model, model.params, [ids], max_new_tokens=30, stop_ids=())
    third = dataclasses.replace(model, end_ids=(new[3],))
    done = complete(third, [start], max_new_tokens=30)
    assert done.new_tokens == new.index(new[3]) <= 3
    assert done.texts == [model.tokenizer.decode(ids + new[: done.new_tokens])[len("<s> ") :]]


def test_samples_by_seed(model):
    sampling = Sampling(1.0, top_k=50)
    one, again, other = (
        complete(model, ["Once"], max_new_tokens=20, sampling=sampling, seed=seed).texts
        for seed in (4, 4, 5)
    )
    assert one == again != other


def test_the_last_position_of_the_model_ends_an_answer(model):
    config = dataclasses.replace(model.model.config, max_positions=24)
    small = dataclasses.replace(model, model=model.model.clone(config=config))
    long, short = (model.tokenizer(text).input_ids for text in ("Once upon a time, a girl", "Once"))
    done = complete(small, ["Once upon a time, a girl", "Once"], max_new_tokens=10**9)
    assert done.new_tokens == 2 * 24 - len(long) - len(short)
    assert str(done).endswith("2 ended by the model's last position")
    assert complete(small, ["Once"], max_new_tokens=5).cut == 0
    with pytest.raises(InputError, match=r"prompt 0 has \d+ tokens .* at most 24 tokens"):
        complete(small, ["Once upon a time " * 9], max_new_tokens=1)
