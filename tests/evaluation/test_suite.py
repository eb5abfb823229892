"""``evaluate``: every score follows from answers that are decoded once."""

import dataclasses
import json
import math
import re
from importlib import import_module

import jax
import numpy as np
import pytest
from small_tokenizers import small_tokenizer

from cat_jax.data.alignment import align_records
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation import answers, causal_mass, measure_causal_mass, suite
from cat_jax.evaluation.results import Evaluation
from cat_jax.evaluation.suite import evaluate
from cat_jax.evaluation.testsets import make_test_set, make_test_sets
from cat_jax.models import LanguageModel
from cat_jax.tasks import files
from cat_jax.testing import ToyTask, toy_model, toy_tokenizer

TASK = ToyTask(test_records=41)
TOKENIZER = toy_tokenizer()
# In its package, a function of the same name hides the module.
ANSWERS = import_module("cat_jax.evaluation.answers")


@pytest.fixture(scope="module")
def toy():
    """A random model whose answers differ."""
    made = toy_model(seed=1)
    params = jax.tree.map(lambda x: 4.0 * x if x.ndim > 2 else x, made.params)
    return LanguageModel(made.model, params, made.tokenizer)


@pytest.fixture
def decoded(monkeypatch):
    """The prompts of each decoding; ``b`` is answered, with spaces around it."""
    calls = []

    def generate(model, params, prompts, **options):
        texts = TOKENIZER.batch_decode(prompts)
        calls.append(texts)
        return [TOKENIZER(f" {text[6]} ").input_ids for text in texts]

    monkeypatch.setattr(ANSWERS, "generate", generate)
    return calls


def aligned(records, length=40):
    return align_records(records, TOKENIZER, max_length=length)[0]


def test_answers_and_mass_are_those_of_the_functions(toy):
    found = evaluate(toy, TASK, seed=3, batch_size=4)
    assert list(found) == ["iid", "ood"]
    assert (len(found), found.task) == (2, "toy")
    for name, test in found.items():
        records = TASK.records(name, 3)
        given = answers(toy.model, toy.params, TOKENIZER, aligned(records))
        assert test.answers == given
        assert test.targets == [record.target for record in records]
        assert test.right.tolist() == [a == r.target for a, r in zip(given, records, strict=True)]
        mass = measure_causal_mass(toy.model, toy.params, aligned(records))
        assert test.mass.mean == mass.mean
        assert mass.mean == causal_mass(toy.model, toy.params, aligned(records)) > 0
        np.testing.assert_array_equal(test.mass.by_head_NH, mass.by_head_NH)
    assert len({answer for test in found.values() for answer in test.answers}) > 2
    assert found.causal_mass == found["iid"].mass.mean != found["ood"].mass.mean

    (intervene,) = TASK.interventions.values()
    rng = np.random.default_rng(3)
    edited = [intervene(record, rng) for record in TASK.records("iid", 3)]
    after = answers(toy.model, toy.params, TOKENIZER, aligned(edited))
    differ = sum(a != b for a, b in zip(found["iid"].answers, after, strict=True))
    assert found.changed == {"spurious": pytest.approx(differ / 41)}


def test_scores_of_a_model_that_reads_the_spurious_factor(decoded):
    found = evaluate(toy_model(), TASK, seed=5)
    ood = TASK.records("ood", 5)
    shown = [record.input[6] for record in ood]
    right = sum(b == record.target for b, record in zip(shown, ood, strict=True))
    assert 0 < right < 41
    assert found["ood"].answers == shown
    assert (found["iid"].exact_match, found["ood"].exact_match) == (1.0, right / 41)

    iid, ood_prompts, edited = decoded
    assert iid == [record.input for record in TASK.records("iid", 5)]
    assert ood_prompts == [record.input for record in ood]
    assert [text[2] for text in edited] == [text[2] for text in iid]
    changed = sum(before[6] != after[6] for before, after in zip(iid, edited, strict=True))
    assert 0 < changed < 41
    assert found.changed["spurious"] == pytest.approx(changed / 41)
    assert found.scores == {
        "iid": 1.0,
        "ood": right / 41,
        "causal_mass": found.causal_mass,
        "changed_answers": found.changed["spurious"],
    }
    assert str(found) == (
        f"toy: iid 100.0%, ood {right / 41:.1%}, causal_mass {found.causal_mass:.1%}, "
        f"changed_answers {changed / 41:.1%}"
    )


def test_each_test_set_is_decoded_once(decoded):
    evaluate(toy_model(), TASK)
    assert len(decoded) == 3  # IID, OOD, and IID with other values of b
    decoded.clear()
    found = evaluate(toy_model(), TASK, splits=["ood"])
    assert list(found) == ["ood"]
    assert len(decoded) == 2
    assert [text[2] for text in decoded[0]] == [text[2] for text in decoded[1]]


@pytest.mark.parametrize("name", ["nfkc", "clean_up", "dummy_prefix", "byte_level"])
def test_a_model_that_repeats_the_right_tokens_scores_one(name, monkeypatch, make_file):
    tokenizer = small_tokenizer(name)
    targets = ["ﬁve ①", "is it not ? no .", "日本", "e\u0301", "a </s> b", " High"]
    lines = [json.dumps({"input": "Answer: ", "target": target}) for target in targets]
    task = files(train="none.jsonl", iid=make_file("iid", *lines))
    test = make_test_sets(task, tokenizer)["iid"]
    golds = [e.tokens[e.target_mask].tolist() for e in test.examples]
    golds = [ids[: ids.index(tokenizer.eos_token_id)] for ids in golds]
    run = dataclasses.replace(toy_model(vocab_size=len(tokenizer)), tokenizer=tokenizer)
    monkeypatch.setattr(ANSWERS, "generate", lambda *a, **k: golds)
    found = suite.answer_test_set(run, task, test, forced=False)
    assert found.exact_match == 1.0
    monkeypatch.setattr(ANSWERS, "generate", lambda *a, **k: golds[1:] + golds[:1])
    assert suite.answer_test_set(run, task, test, forced=False).exact_match == 0.0


def test_a_model_stops_at_its_own_ends(monkeypatch):
    seen = []
    monkeypatch.setattr(
        ANSWERS,
        "generate",
        lambda _model, _params, prompts, stop_ids, **k: seen.append(stop_ids) or [[]] * 3,
    )
    run = dataclasses.replace(toy_model(), end_ids=(41,))
    suite.answer_test_set(run, TASK, make_test_sets(TASK, TOKENIZER)["iid"][:3], forced=False)
    assert seen == [run.stop_ids] == [(TOKENIZER.eos_token_id, 41)]


class Judging(ToyTask):
    """Answers are compared as numbers, and there are two interventions."""

    def parse_answer(self, text):
        return text.strip().lstrip("0") or "0"

    def is_right(self, answer, target):
        return (int(answer) - int(target)) % 10 in (0, 1)

    @property
    def interventions(self):
        def next_digit(record, rng):
            text = record.input[:6] + str((int(record.input[6]) + 1) % 10) + record.input[7:]
            return dataclasses.replace(record, input=text)

        return {"next": next_digit, "none": lambda record, rng: record}


def test_the_task_judges(decoded):
    found = evaluate(toy_model(), Judging(test_records=41), interventions=("next", "none"))
    assert found.scores.keys() == {
        "iid",
        "ood",
        "causal_mass",
        "changed_answers_next",
        "changed_answers_none",
    }
    assert found.changed == {"next": 1.0, "none": 0.0}
    right = [(int(r.input[6]) - int(r.target)) % 10 < 2 for r in TASK.records("ood")]
    assert found["ood"].right.tolist() == right
    assert True in right
    assert False in right


@pytest.fixture
def make_file(tmp_path):
    def make(name, *lines):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines))
        return str(path)

    return make


def test_files_without_annotation_have_no_mass(make_file, toy):
    line = '{"input": "a=3 b=3 a is ", "target": "3"}'
    chat = (
        '{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "x"}, '
        '{"role": "user", "content": "b?"}, {"role": "assistant", "content": "yes"}]}'
    )
    task = files(train="none.jsonl", iid=make_file("i", line, line), ood=make_file("o", chat))
    found = evaluate(toy, task)
    assert found["ood"].targets == ["yes"]
    assert math.isnan(found.causal_mass)
    assert math.isnan(found.scores["causal_mass"])
    assert found.changed == {}
    assert "nan" not in str(found)
    assert "causal_mass" not in str(found)


def test_sets_without_mass_measure_none(toy, monkeypatch):
    monkeypatch.setattr(suite, "measure_right_answers", None)
    test = make_test_sets(TASK, TOKENIZER)["iid"]
    found = suite.answer_test_set(toy, TASK, test[2:5], forced=False)
    assert found.mass is None
    assert found.targets == test.targets[2:5]
    assert math.isnan(Evaluation("toy", {"iid": found}).causal_mass)


def test_a_task_without_test_sets(make_file):
    with pytest.raises(InputError, match=r"task files has no test set; give --data\.iid"):
        evaluate(toy_model(), files(train=make_file("t", '{"text": "a"}')))


def test_an_unknown_test_set():
    with pytest.raises(InputError, match="task toy has no split 'odd'"):
        evaluate(toy_model(), TASK, splits=["odd"])


RECORD = TASK.records("iid")[0]
BAD = {
    "has no prompt to answer; test records need 'input' and 'target'": Record("", "abc"),
    "1 of 2 records are longer than 14 tokens; shorten": Record("a" * 13, "4"),
    "1 of 2 prompts have words that the tokenizer does not know": Record("Å is ", "4"),
}


@pytest.mark.parametrize(("message", "bad"), BAD.items())
def test_a_record_that_cannot_be_answered_is_refused(message, bad):
    # One token ends the answer.
    fits = make_test_set("mine", [Record("a" * 12, "4"), RECORD], TOKENIZER, max_length=15)
    assert fits.targets == ["4", RECORD.target]
    limit = 14 if "longer" in message else 40
    short = Record("a is ", "4")
    with pytest.raises(InputError, match="test set 'mine': .*" + re.escape(message)):
        make_test_set("mine", [short, bad], TOKENIZER, max_length=limit)


def test_the_record_without_prompt_is_numbered(make_file):
    task = files(
        train="none.jsonl",
        iid=make_file("iid", '{"input": "a", "target": "b"}', '{"input": "", "target": "abc"}'),
    )
    with pytest.raises(InputError, match="test set 'iid': record 2 has no prompt"):
        evaluate(toy_model(), task)


def test_a_conversation_is_judged_by_its_last_answer():
    talk = Conversation((Message("user", "a?"), Message("assistant", "yes")))
    test = make_test_set("talks", [talk, RECORD], TOKENIZER)
    assert test.targets == ["yes", RECORD.target]
    assert test[1:].records == [RECORD]


def test_interventions_do_not_edit_conversations(make_file):
    chat = (
        '{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "x"}]}'
    )
    task = ToyTask(test_records=2, test_files=(make_file("talks", chat),))
    assert list(make_test_sets(task, TOKENIZER)) == ["iid", "ood", "talks"]
    with pytest.raises(InputError, match=r"'talks' has conversations, .* of task toy cannot edit"):
        evaluate(toy_model(), task, splits=["talks", "iid"])
