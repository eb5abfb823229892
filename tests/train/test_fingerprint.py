"""A resumed run knows its data."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from small_runs import RECORDS, TRAIN, assert_same, run

from cat_jax.errors import InputError
from cat_jax.testing import raise_at, toy_examples, toy_records
from cat_jax.train import fingerprint
from cat_jax.train.fingerprint import DATA_FILE, READ, WIDTH, Fingerprint

EXAMPLES = toy_examples(count=7)
VALIDATION = RECORDS[:5]


def changed(example, name):
    """The example with another value in one field, of the same shape where there is one."""
    value = getattr(example, name)
    value = np.zeros(len(example.tokens), np.int32) if value is None else np.array(value)
    value.flat[0] = not value.flat[0] if value.dtype == bool else value.flat[0] + 1
    return dataclasses.replace(example, **{name: value})


@pytest.mark.parametrize("name", READ)
def test_every_field_that_training_reads_counts(name):
    before = Fingerprint.of(EXAMPLES)
    now = Fingerprint.of([*EXAMPLES[:4], changed(EXAMPLES[4], name), *EXAMPLES[5:]])
    assert before == Fingerprint.of(list(EXAMPLES))
    assert before.difference(now) == "record 5 is the first with other tokens or annotations"


def test_lengths_do_not_run_into_each_other():
    """The same bytes, divided otherwise among records."""
    one = toy_examples(count=2)
    tokens = np.concatenate([example.tokens for example in one])
    masks = np.concatenate([example.target_mask for example in one])
    cut = len(one[0].tokens) - 1
    other = [
        dataclasses.replace(example, tokens=tokens[part], target_mask=masks[part])
        for example, part in zip(one, (slice(cut), slice(cut, None)), strict=True)
    ]
    assert Fingerprint.of(one).sha256 != Fingerprint.of(other).sha256


@pytest.mark.parametrize(
    ("indices", "difference"),
    [
        (range(7), None),
        (range(6), "6 records instead of 7"),
        ([*range(7), 0], "8 records instead of 7"),
        ([1, 2, 3, 4, 5, 6], "6 records instead of 7, record 1 the first that differs"),
        ([0, 1, 2, 4, 3, 5, 6], "record 4 is the first with other tokens or annotations"),
        ([], "0 records instead of 7"),
    ],
)
def test_what_differs_is_said(indices, difference):
    now = Fingerprint.of([EXAMPLES[n] for n in indices])
    assert Fingerprint.of(EXAMPLES).difference(now) == difference


def test_of_many_records_one_digest_stands_for_several(monkeypatch):
    monkeypatch.setattr(fingerprint, "DIGESTS", 3)
    before = Fingerprint.of(EXAMPLES)
    assert (before.per_digest, len(before.digests)) == (3, 3 * WIDTH)
    now = Fingerprint.of([*EXAMPLES[:4], changed(EXAMPLES[4], "tokens"), *EXAMPLES[5:]])
    assert before.difference(now) == (
        "one of the records 4 to 6 is the first with other tokens or annotations"
    )
    # With another number of records the digests stand for other groups.
    assert before.difference(Fingerprint.of(EXAMPLES[:6])) == "6 records instead of 7"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after its first checkpoint, and what it would have become."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyError):
        run(workdir=workdir, validation=VALIDATION, callbacks=[raise_at(4, KeyError())])
    return workdir


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": [*RECORDS[:22], RECORDS[0]]}, "other training data .record 23 is the first"),
        ({"records": RECORDS[:22]}, "other training data .22 records instead of 23"),
        ({"records": RECORDS[::-1]}, "other training data .record 1 is the first"),
        ({"validation": VALIDATION[:4]}, "other validation data .4 records instead of 5"),
        ({"validation": ()}, "other validation data .it was begun with validation data"),
    ],
)
def test_an_unfinished_run_does_not_go_on_with_other_data(stopped, options, message):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message) as caught:
        run(workdir=stopped, **{"validation": VALIDATION, **options})
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_other_annotations_are_other_data(stopped):
    bare = dataclasses.replace(RECORDS[2], important=())
    with pytest.raises(InputError, match="record 3 is the first with other tokens or annotations"):
        run(workdir=stopped, validation=VALIDATION, records=[*RECORDS[:2], bare, *RECORDS[3:]])


def test_records_that_are_too_long_do_not_count(tmp_path):
    long = dataclasses.replace(toy_records(count=1)[0], input="a=3 b=3 " * 9, important=())
    packed = dataclasses.replace(TRAIN, pack=True, steps=2)
    first = run(workdir=tmp_path / "run", train=packed, records=[*RECORDS, long])
    again = run(workdir=tmp_path / "run", train=packed, records=RECORDS)
    assert_same(first.params, again.params)
    kept = json.loads((tmp_path / "run" / DATA_FILE).read_text())
    assert kept["training"]["records"] == len(RECORDS)


def test_an_older_run_goes_on_and_knows_its_data_from_then_on(tmp_path, caplog):
    options = {"workdir": tmp_path / "run", "validation": VALIDATION}
    with pytest.raises(KeyError):
        run(**options, callbacks=[raise_at(4, KeyError())])
    (tmp_path / "run" / DATA_FILE).unlink()
    with caplog.at_level(logging.INFO, "cat_jax"), pytest.raises(KeyError):
        run(**options, callbacks=[raise_at(5, KeyError())])
    (said,) = [text for text in caplog.messages if DATA_FILE in text]
    assert said.startswith(f"{tmp_path / 'run'} has no {DATA_FILE}: whether this is the data that")
    with pytest.raises(InputError, match="22 records instead of 23"):
        run(**options, records=RECORDS[:22])


@pytest.mark.parametrize("content", ["", "[]", '{"training": 3}', '{"training": {}}', '{"train'])
def test_a_damaged_fingerprint_is_a_sentence(stopped, content):
    good = (stopped / DATA_FILE).read_text()
    (stopped / DATA_FILE).write_text(content)
    try:
        with pytest.raises(InputError, match=rf"{DATA_FILE} .*; restore it to resume"):
            run(workdir=stopped, validation=VALIDATION)
    finally:
        (stopped / DATA_FILE).write_text(good)
