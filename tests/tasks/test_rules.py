"""Reference rules on the published test sets, and the texts that the generators draw."""

import dataclasses
import zlib
from itertools import islice

import pytest

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.sources import read_records
from cat_jax.tasks import score_rules, stg, stg_h
from cat_jax.tasks.rules import score_rule

STG_IID = "STG/spurious_token_game_test3.jsonl"
STG_OOD = "STG/spurious_token_game_ood3_2.jsonl"
PUBLISHED = [
    (stg, STG_IID, {"oracle": 0.9975, "shortcut": 0.965, "majority": 0.6875}),
    (stg, STG_OOD, {"oracle": 1.0, "shortcut": 0.625, "majority": 0.665}),
    (stg_h, "STG_H/STG_H_iid_test.jsonl", {"oracle": 0.971}),
    (stg_h, "STG_H/STG_H_ood_test.jsonl", {"oracle": 0.970}),
]
RULES = ["oracle", "shortcut", "majority", "linear_causal", "linear_spurious", "linear_all"]


@pytest.mark.parametrize(("task", "file", "accuracy"), PUBLISHED)
def test_accuracy_of_rules_on_published_test_sets(shared, task, file, accuracy):
    records = read_records(shared / "data/cat_reference" / file)
    rules = task().reference_rules()
    assert list(rules) == RULES
    for name, expected in accuracy.items():
        right = sum(rules[name](record) == record.target for record in records)
        assert right == round(expected * len(records)), name
        assert right / len(records) == pytest.approx(expected)


STG_M = "STG/spurious_token_game_train3_M.jsonl"
# Computed once with numpy.linalg.lstsq on the published rows, without this project's code.
LINEAR = [
    (stg, STG_M, STG_IID, (0.98, 0.9625, 0.98), 1 / 400),
    (stg, STG_M, STG_OOD, (0.9925, 0.6225, 0.7925), 1 / 400),
    (stg_h, "STG_H/STG_H_train.jsonl", "STG_H/STG_H_iid_test.jsonl", (None, 0.045, 0.954), 2e-3),
    (stg_h, "STG_H/STG_H_train.jsonl", "STG_H/STG_H_ood_test.jsonl", (None, 0.027, 0.963), 2e-3),
]


@pytest.mark.parametrize(("task", "train", "test", "expected", "tolerance"), LINEAR)
def test_least_squares_on_the_published_rows(shared, task, train, test, expected, tolerance):
    folder, game = shared / "data/cat_reference", task()
    training = [
        # "Middle Risk" is a bug of the published generator; the score is below the limit.
        dataclasses.replace(record, target=record.target.replace("Middle", "Low"), important=())
        for record in read_records(folder / train)
    ]
    rules = game.linear_rules(training)
    assert list(rules) == RULES[3:]
    records = read_records(folder / test)
    for rule, share in zip(rules.values(), expected, strict=True):
        found = score_rule(rule, records, game.is_right)
        assert share is None or found == pytest.approx(share, abs=tolerance + 1e-9)


def test_rules_are_scored_on_every_test_set():
    game = stg(train_records=300, test_records=50)
    scores = score_rules(game, seed=2)
    assert list(scores) == RULES
    assert scores["oracle"] == {"iid": 1.0, "ood": 1.0}
    for rule, answer in game.reference_rules(2).items():
        for split, share in scores[rule].items():
            right = [answer(x) == x.target for x in game.records(split, 2)]
            assert share == sum(right) / 50


def test_rules_read_records_alone():
    talk = Conversation((Message("user", "a"), Message("assistant", "b")))
    game = stg(train_records=300)
    scores = score_rules(game, {"mixed": [talk, *game.records("iid")[:4]], "talks": [talk]})
    assert scores["oracle"] == {"mixed": 1.0}


@pytest.mark.parametrize("task", [stg, stg_h])
@pytest.mark.parametrize("seed", [0, 3])
def test_majority_is_the_most_frequent_training_answer_of_the_seed(task, seed):
    game = task(train_records=101)
    answers = [record.target for record in game.records("train", seed)]
    rule = game.reference_rules(seed)["majority"]
    (first, second) = islice(game.stream("ood", seed), 2)
    assert rule(first) == rule(second)
    assert answers.count(rule(first)) == max(map(answers.count, answers))


# CRC-32 of the texts of the first 50 records, as every release has drawn them.
DRAWN = {
    (stg, "train", 0): 599774791,
    (stg, "train", 3): 2117684699,
    (stg, "iid", 0): 2131662679,
    (stg, "iid", 3): 1195930964,
    (stg, "ood", 0): 858011894,
    (stg, "ood", 3): 221408838,
    (stg_h, "train", 0): 3317591475,
    (stg_h, "train", 3): 3417797966,
    (stg_h, "iid", 0): 3289022425,
    (stg_h, "iid", 3): 3880698803,
    (stg_h, "ood", 0): 4212510581,
    (stg_h, "ood", 3): 814689874,
}


@pytest.mark.parametrize("drawn", DRAWN, ids=lambda key: f"{key[0].name}-{key[1]}-{key[2]}")
def test_records_of_a_seed_never_change(drawn):
    task, split, seed = drawn
    texts = [record.text + record.target for record in islice(task().stream(split, seed), 50)]
    assert zlib.crc32("".join(texts).encode()) == DRAWN[drawn]
