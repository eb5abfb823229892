"""Methods that do not train: what they ask, where answers end, and what is left of a run."""

import dataclasses
import json
import math
from typing import ClassVar

import numpy as np
import pytest

from cat_jax import tasks
from cat_jax.compare import Method, compare, save_report
from cat_jax.compare.methods.few_shot import few_shot_prompt
from cat_jax.compare.setup import setup_comparison
from cat_jax.compare.untrained import load_untrained
from cat_jax.config import Training
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.ends import line_end_ids
from cat_jax.data.records import Record
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.evaluation import answers
from cat_jax.testing import ToyTask, toy_model, toy_records, toy_tokenizer

TRAIN = Training(steps=2, batch_size=8, log_every=1, eval_every=2, max_length=40)
TASK = ToyTask(train_records=24, test_records=7)
UNTUNED, FEW_SHOT = (
    Method("untuned", "u", lambda guidance: None, trains=False),
    Method("few", "f", lambda guidance: None, prompt=few_shot_prompt, trains=False),
)


def loaded(task, method, model=None):
    setup = setup_comparison(model or toy_model(), task, [method], None, TRAIN, seed=0)
    return setup.tests[method.name], load_untrained(setup, method.name, TRAIN, None)


def test_the_model_is_evaluated_as_it_is(tmp_path):
    model, folder = toy_model(), tmp_path / "run"
    found, again = (
        compare(
            model, TASK, methods=["untuned", "few_shot", "baseline"], train=TRAIN, workdir=folder
        )
        for _ in range(2)
    )
    untuned, few_shot, baseline = found.runs
    tests, as_it_is = loaded(TASK, UNTUNED, model)
    expected = answers(
        model.model,
        model.params,
        model.tokenizer,
        tests["ood"].examples,
        end_ids=line_end_ids(model.tokenizer),
    )
    assert untuned.evaluation["ood"].answers == expected
    assert as_it_is.model.config == model.model.config
    for run in (untuned, few_shot):
        assert run.history == []
        assert run.selected is None
        assert math.isnan(run.seconds_per_step)
    assert few_shot.evaluation["ood"].answers != expected
    assert baseline.history
    # Nothing of an untrained method is written; it is evaluated again, to the same scores.
    assert [path.name for path in (folder / "seed-0").iterdir()] == ["baseline"]
    for before, after in zip(found.runs, again.runs, strict=True):
        np.testing.assert_equal(after.scores, before.scores)
    page = save_report(found, folder).read_text()
    row = next(line for line in page.splitlines() if line.startswith("| untuned"))
    assert row.endswith("| – |")
    assert "time of a train step" in page
    report = json.loads((folder / "report.json").read_text())
    assert report["untuned"]["seconds_per_step"] is None
    assert report["seconds"] == pytest.approx(baseline.history[-1]["elapsed_seconds"], abs=0.2)


def test_a_comparison_may_train_nothing(tmp_path):
    found = compare(toy_model(), TASK, methods=["untuned"], train=TRAIN)
    assert "warning" not in save_report(found, tmp_path).read_text()
    assert not (tmp_path / "figures" / "training.png").exists()
    assert found.seconds == 0


def test_shown_records_stand_before_every_prompt():
    """The same ones, of the training data, up to where the model ends reading."""
    tests, _ = loaded(TASK, FEW_SHOT)
    tokenizer, training = toy_tokenizer(), {r.text for r in TASK.records("train")}
    shown = set()
    for example, record in zip(tests["ood"].examples, TASK.records("ood"), strict=True):
        assert len(example.tokens) > TRAIN.max_length
        text = tokenizer.decode(example.tokens[:-1])
        *before, last = text.split("\n\n")
        assert last == record.text
        assert len(before) == 8
        assert training.issuperset(before)
        shown.add(tuple(before))
        # Annotated is the digit of this record's own "a=", not those of the shown ones.
        (causes,) = np.nonzero(example.k_bits.any(-1))
        assert causes.tolist() == [len(text) - len(last) + 2]
    assert len(shown) == 1
    other = few_shot_prompt(TASK, 1)(TASK.records("ood")[0])
    assert other.input.split("\n\n")[:-1] != list(*shown)


def test_prompts_end_where_the_model_does():
    short = toy_model(max_positions=100)
    with pytest.raises(InputError, match="'iid': 7 of 7 records are longer than 100 tokens"):
        loaded(TASK, FEW_SHOT, short)


def test_an_answer_ends_with_its_line_unless_right_ones_have_several():
    line_end = toy_tokenizer().convert_tokens_to_ids("\n")
    assert line_end_ids(toy_tokenizer()) == (line_end,)
    _, model = loaded(TASK, UNTUNED)
    assert line_end in model.stop_ids

    class Lines(ToyTask):
        def make_records(self, split, seed):
            records = super().make_records(split, seed)
            return [dataclasses.replace(r, target=f"1\n{r.target}", important=()) for r in records]

        interventions: ClassVar = {}

    lines = Lines(train_records=24, test_records=7)
    _, model = loaded(lines, UNTUNED)
    assert line_end not in model.stop_ids
    with pytest.raises(InputError, match=r"few_shot: an answer ends with its line, but .* '1\\n"):
        few_shot_prompt(lines, 0)


def test_what_few_shot_needs_is_said(tmp_path):
    write_records(tmp_path / "train.jsonl", toy_records("train", 3))
    few = tasks.files(train=str(tmp_path / "train.jsonl"))
    with pytest.raises(InputError, match="few_shot shows 8 training records, but task files has 3"):
        few_shot_prompt(few, 0)
    prompt = few_shot_prompt(few, 0, shots=2)
    assert isinstance(prompt(Record("a ", "b")), Record)
    talk = Conversation((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(InputError, match="few_shot: record 1 is a conversation"):
        prompt(talk)
