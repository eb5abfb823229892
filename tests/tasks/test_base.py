"""What every task keeps to, on the generated ones: splits, options, interventions, spans."""

import dataclasses
import json
from importlib import import_module
from itertools import islice

import numpy as np
import pytest

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks import TASKS as ALL
from cat_jax.tasks import Task, stg, stg_h

# ``cat_jax.tasks.stg`` is the class.
MODULES = {name: import_module(f"cat_jax.tasks.{name}") for name in ("stg", "stg_h")}
TASKS = {"stg": stg, "stg_h": stg_h}


@pytest.fixture(params=TASKS)
def game(request):
    return request.param


def generated(game, **options):
    return TASKS[game](**{"train_records": 30, "test_records": 12} | options)


def test_splits_are_the_streams_of_the_seed(game):
    task, module = generated(game), MODULES[game]
    generate = getattr(module, f"{game}_records")
    options = {"seed": 3, "granularity": "value", "effect": "target"}
    assert task.splits == ("train", "iid", "ood")
    assert task.test_splits == ("iid", "ood")
    for split, count in (("train", 30), ("iid", 12), ("ood", 12)):
        assert task.records(split, 3) == list(islice(generate(split=split, **options), count))


def test_train_iid_ood_and_seeds_share_no_record(game):
    task = generated(game)
    texts = [r.text for seed in (0, 1) for split in task.splits for r in task.records(split, seed)]
    assert len(set(texts)) == 2 * (30 + 12 + 12)


def test_twins_follow_their_cause_except_out_of_distribution():
    task, same = generated("stg", test_records=200), {}
    for split in task.test_splits:
        parsed = [task.read(r.text) for r in task.records(split)]
        same[split] = sum(f["Weight"] == f["Clothing size"] for f in parsed) / len(parsed)
    assert same["iid"] == 1.0
    # Independent and uniform on 1..10: one in ten.
    assert 0.02 < same["ood"] < 0.2


def test_options_reach_the_generator(game):
    causal = MODULES[game].CAUSAL
    for record in islice(generated(game, effect="answer", trace=True).stream("train"), 5):
        assert len(record.important) == 1 + len(causal)
        assert record.important[0].effect.text == f"Answer: {record.target}"
    (record,) = islice(generated(game, granularity="span").stream("train"), 1)
    names = {cause.text.split(": ")[0] for cause in record.important[0].causes}
    assert names == set(causal)


@pytest.mark.parametrize(
    ("game", "file"),
    [("stg", "STG/spurious_token_game_train3.jsonl"), ("stg_h", "STG_H/STG_H_train.jsonl")],
)
def test_as_published_annotates_like_the_published_files(shared, game, file):
    ours = generated(game, granularity="span" if game == "stg_h" else "value", trace=True)
    record = ours.as_published().records("train")[0]
    (note,) = record.important
    lines = (shared / "data" / "cat_reference" / file).read_text().splitlines()
    ((effect, causes),) = json.loads(lines[0])["important"][0].items()
    assert note.effect.text.startswith("Answer: ") == effect.startswith("Answer: ")
    assert len(note.causes) == len(causes)
    assert all((": " in cause) == (game == "stg") for cause in causes)
    assert all((": " in cause.text) == (game == "stg") for cause in note.causes)


def test_as_published_keeps_the_texts_and_the_other_settings(game):
    task = generated(game, trace=True, test_files=("a.jsonl",))
    ours, published = (t.records("train", 5) for t in (task, task.as_published()))
    assert [r.text for r in ours] == [r.text for r in published]
    assert all(a.important != b.important for a, b in zip(ours, published, strict=True))
    assert task.as_published().test_splits == task.test_splits


def test_intervention_changes_spurious_values_alone(game):
    task, module = generated(game, trace=True), MODULES[game]
    records = task.records("iid")
    intervene = task.interventions["spurious"]

    def intervened(seed):
        rng = np.random.default_rng(seed)
        return [intervene(record, rng) for record in records]

    after, changed = intervened(0), set()
    for record, new in zip(records, after, strict=True):
        old_factors, new_factors = map(task.read, (record.text, new.text))
        assert list(old_factors) == list(new_factors)
        changed |= {name for name in old_factors if old_factors[name] != new_factors[name]}
        assert new.target == record.target
        assert [note.effect.text for note in new.important] == [
            note.effect.text for note in record.important
        ]
    assert changed == set(module.SPURIOUS)
    assert intervened(0) == after
    assert intervened(1) != after


def test_spurious_spans_are_names_with_values(game):
    task, module = generated(game), MODULES[game]
    for record in task.records("train"):
        parsed = task.read(record.text)
        found = {}
        for span in task.spurious_spans(record):
            assert record.text.startswith(span.text, span.start)
            name, value = span.text.split(": ")
            found[name] = float(value)
        assert found == {name: parsed[name] for name in module.SPURIOUS}


@pytest.mark.parametrize(
    ("twins", "group"), [((15, 10, 0), "cue agrees"), ((1, 1, 5), "cue disagrees")]
)
def test_the_group_of_a_game_is_whether_its_twins_point_to_the_answer(twins, group):
    causes = {"Smoking": 10, "Weight": 10, "Exercise": 1}
    others = {"Certain gene": 3, "Room size": 9}
    spurious = dict(zip(MODULES["stg"].SPURIOUS, twins, strict=True))
    record = MODULES["stg"].stg_record(causes | others | spurious)
    assert record.target == "High Risk"
    assert generated("stg").group(record) == group


def test_of_a_number_the_cue_agrees_where_it_is_within_the_tolerance():
    task, found = generated("stg_h", test_records=60), set()
    for record in task.records("iid"):
        close = abs(int(task.shortcut(record)) - int(record.target)) <= 5
        assert task.group(record) == ("cue agrees" if close else "cue disagrees")
        found.add(close)
    assert found == {True, False}


def test_what_is_no_text_of_the_game_has_no_group(game):
    talk = Conversation((Message("user", "a"), Message("assistant", "b")))
    assert [generated(game).group(x) for x in (talk, Record("a=1 is ", "1"))] == [None, None]


@pytest.mark.parametrize("field", ["train_records", "test_records"])
def test_a_task_without_records_is_refused(game, field):
    with pytest.raises(InputError, match=rf"data\.{field} must be at least 1 .*, got 0"):
        generated(game, **{field: 0})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bare(Task):
    """Gives only what every task must."""

    name = "bare"

    @property
    def splits(self):
        return ("train", "validation", "easy", "hard")

    def make_records(self, split, seed):
        return [(split, seed)]


def test_a_task_of_ones_own_claims_nothing_else():
    task = Bare(test_files=("more/odd.jsonl",))
    assert task.test_splits == ("easy", "hard", "odd")
    assert task.records("hard", 4) == [("hard", 4)]
    known = "train, validation, easy, hard, odd"
    with pytest.raises(InputError, match=f"task bare has no split 'iid'; there are {known}"):
        task.records("iid")
    assert (task.interventions, task.reference_rules(), task.spurious_spans(None)) == ({}, {}, [])
    assert task.group(None) is None
    assert task.as_published() is task
    assert task.parse_answer(" 7\n") == "7"
    assert task.is_right("7", " 7\n")
    assert not task.is_right("7.0", "7")


def test_a_task_must_give_its_records():
    with pytest.raises(TypeError, match="abstract method"):
        Task()


def test_tasks_with_a_prior_bring_it_along():
    """Its answer stands where the target does, so that an annotation by it can be accepted."""
    named = {name: task.prior_name for name, task in ALL.items() if task.prior_name}
    assert {"stg", "stg_h", "mawps", "svamp", "asdiv", "gsm8k", "arc"} <= set(named)
    for name in named:
        assert ALL[name].prior.answer
    with pytest.raises(InputError, match="task cladder has no causal prior"):
        _ = ALL["cladder"].prior
