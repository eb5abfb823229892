import hashlib
import itertools
import json
import re
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from cat_jax.data.matching import find_span
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

stg = import_module("cat_jax.tasks.stg")

FILES = {
    "stg_l": "spurious_token_game_train3.jsonl",
    "stg_m": "spurious_token_game_train3_M.jsonl",
    "stg_s": "spurious_token_game_train3_S.jsonl",
    "iid": "spurious_token_game_test3.jsonl",
    "ood": "spurious_token_game_ood3_2.jsonl",
}
FACTORS = stg.CAUSAL + stg.SPURIOUS + stg.IRRELEVANT


def published(shared, name):
    lines = (shared / "data/cat_reference/STG" / FILES[name]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def generated(n, **options):
    return list(itertools.islice(stg.stg_records(**options), n))


def table(texts):
    """Factors of every row, int [N, 8]."""
    parsed = map(stg.STG().read, texts)
    return np.array([[factors[name] for name in FACTORS] for factors in parsed])


def label_of(text):
    factors = stg.STG().read(text)
    return stg.stg_label(*(factors[name] for name in stg.CAUSAL))


@pytest.mark.parametrize("name", FILES)
def test_rule_gives_every_published_label_but_middle_risk(shared, name):
    for row in published(shared, name):
        smoking, weight, exercise = table([row["input"]])[0, :3].tolist()
        # The known exception: their generator's float score hits 2.7 exactly.
        buggy = 1.2 * smoking + 0.7 * weight - exercise == 2.7
        assert (row["target"] == "Middle Risk") == buggy
        if not buggy:
            assert row["target"] == stg.stg_label(smoking, weight, exercise)


def test_middle_risk_rows_are_as_rare_as_documented(shared):
    middle = {
        name: sum(row["target"] == "Middle Risk" for row in published(shared, name))
        for name in FILES
    }
    assert middle == {"stg_l": 6, "stg_m": 1, "stg_s": 1, "iid": 1, "ood": 0}


@pytest.mark.parametrize("name", FILES)
def test_published_rows_are_rebuilt_to_the_letter(shared, name):
    for row in published(shared, name):
        record = stg.stg_record(stg.STG().read(row["input"]))
        assert record.input == row["input"]
        if "important" in row and row["target"] != "Middle Risk":
            (note,) = record.important
            assert [{note.effect.text: [c.text for c in note.causes]}] == row["important"]


def test_sizes_are_the_published_ones(shared):
    for name in ("stg_l", "stg_m", "stg_s"):
        sizes = {split: len(published(shared, split)) for split in ("iid", "ood")}
        assert stg.SIZES[name] == {"train": len(published(shared, name)), **sizes}


@pytest.mark.parametrize(
    ("split", "majority", "twins"), [("iid", 68.75, 94.75), ("ood", 66.5, 62.75)]
)
def test_baseline_accuracies_on_published_tests(shared, split, majority, twins):
    rows = published(shared, split)
    labels = [row["target"] for row in rows]
    assert 100 * Counter(labels).most_common(1)[0][1] / len(rows) == majority
    # Undo the twins (smoking = fingers / 1.5, exercise = 2 hormones), then the causal rule.
    fingers, clothing, hormones = table(row["input"] for row in rows)[:, 3:6].T
    guesses = np.where(8 * fingers + 7 * clothing - 20 * hormones > 72, "High Risk", "Low Risk")
    assert np.sum(guesses == labels) == 4 * twins
    causal = [label_of(row["input"]) for row in rows]
    assert sum(c == t for c, t in zip(causal, labels, strict=True)) == 400 - (split == "iid")


@pytest.mark.parametrize("split", ["train", "iid"])
def test_twins_copy_in_distribution_and_in_the_published_files(shared, split):
    texts = [record.input for record in generated(500, split=split, seed=3)]
    for name in ("stg_l", "iid"):
        texts += [row["input"] for row in published(shared, name)]
    smoking, weight, exercise, fingers, clothing, hormones, *_ = table(texts).T
    np.testing.assert_array_equal(fingers, (1.5 * smoking).astype(int))
    np.testing.assert_array_equal(clothing, weight)
    np.testing.assert_array_equal(hormones, (0.5 * exercise).astype(int))


@pytest.mark.parametrize(("split", "files"), [("train", ["stg_l", "iid"]), ("ood", ["ood"])])
def test_generated_marginals_match_published(shared, split, files):
    theirs = [row["input"] for name in files for row in published(shared, name)]
    ours = [record.input for record in generated(8000, split=split, seed=11)]
    pairs = [*zip(table(theirs).T, table(ours).T, strict=True)]
    for name in FACTORS:  # where in the text each factor stands
        pairs.append(
            tuple([list(stg.STG().read(t)).index(name) for t in s] for s in (theirs, ours))
        )
    pairs.append(tuple([label_of(text) for text in s] for s in (theirs, ours)))
    for their, our in pairs:
        values = sorted(set(their) | set(our))
        counts = [
            [Counter(np.asarray(s).tolist())[v] for v in np.asarray(values).tolist()]
            for s in (their, our)
        ]
        assert chi2_contingency(counts).pvalue > 1e-3


def test_ood_factors_are_independent(shared):
    theirs = [row["input"] for row in published(shared, "ood")]
    ours = [record.input for record in generated(8000, split="ood", seed=5)]
    for texts in (theirs, ours):
        correlations = np.corrcoef(table(texts).T) - np.eye(8)
        assert np.abs(correlations).max() < 4 / np.sqrt(len(texts))


def test_in_distribution_factors_are_independent_but_for_the_twins():
    causal_and_irrelevant = table(r.input for r in generated(8000, seed=5))[:, [0, 1, 2, 6, 7]]
    correlations = np.corrcoef(causal_and_irrelevant.T) - np.eye(5)
    assert np.abs(correlations).max() < 4 / np.sqrt(8000)


ANNOTATED = [
    ("span", "target", "High Risk", ["Exercise: 2", "Weight: 2", "Smoking: 8"]),
    ("value", "answer", "Answer: High Risk", ["2", "2", "8"]),
]


@pytest.mark.parametrize(("granularity", "effect", "words", "causes"), ANNOTATED)
def test_annotations_of_a_row_with_repeated_values(granularity, effect, words, causes):
    factors = {"Hormones": 2, "Exercise": 2, "Room size": 8, "Yellow fingers": 8, "Weight": 2}
    factors |= {"Certain gene": 2, "Smoking": 8, "Clothing size": 2}
    record = stg.stg_record(factors, granularity=granularity, effect=effect, prefix=False)
    assert record.text == (
        "Hormones: 2, Exercise: 2, Room size: 8, Yellow fingers: 8, Weight: 2, "
        "Certain gene: 2, Smoking: 8, Clothing size: 2 Answer: High Risk"
    )
    (note,) = record.important
    assert note.effect == Span(words)
    assert [span.text for span in note.causes] == causes
    names = ("Exercise: ", "Weight: ", "Smoking: ")
    into = [len(name) if granularity == "value" else 0 for name in names]
    starts = [record.text.index(name) + i for name, i in zip(names, into, strict=True)]
    found = [find_span(record.text, span) for span in note.causes]
    assert [[place.start for place in places] for places in found] == [[start] for start in starts]


OPTIONS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["train", "iid", "ood"]),
        "seed": st.integers(0, 2**40),
        "granularity": st.sampled_from(["span", "value"]),
        "effect": st.sampled_from(["target", "answer"]),
        "prefix": st.booleans(),
    }
)


def spans_of(record):
    return [span for note in record.important for span in (note.effect, *note.causes)]


@given(OPTIONS, st.integers(0, 2**32))
def test_offsets_hold_and_intervention_changes_only_twins(options, seed):
    (record,) = generated(1, **options)
    changed = stg.intervene(record, np.random.default_rng(seed))
    for one in (record, changed):
        for span in spans_of(one):
            (place,) = find_span(one.text, span)
            assert one.text.startswith(span.text, place.start)
    assert [s.text for s in spans_of(changed)] == [s.text for s in spans_of(record)]
    before, after = stg.STG().read(record.text), stg.STG().read(changed.text)
    assert list(before) == list(after)
    kept = stg.CAUSAL + stg.IRRELEVANT
    assert [before[name] for name in kept] == [after[name] for name in kept]
    rebuilt = {name: options[name] for name in ("granularity", "effect", "prefix")}
    assert changed == stg.stg_record(after, **rebuilt)


def test_intervened_twins_are_uniform_and_independent():
    rng = np.random.default_rng(2)
    rows = table(stg.intervene(record, rng).input for record in generated(8000, seed=7))
    correlations = np.corrcoef(rows.T) - np.eye(8)
    assert np.abs(correlations).max() < 4 / np.sqrt(8000)
    for twin in rows[:, 3:6].T:
        assert chi2_contingency([np.bincount(twin, minlength=11)[1:], [800] * 10]).pvalue > 1e-3


def test_intervention_keeps_spans_without_offset():
    (record,) = generated(1, seed=1)
    words = tuple(Span(cause.text) for cause in record.important[0].causes)
    loose = Record(record.input, record.target, (Annotation(Span(record.target), words),))
    assert stg.intervene(loose, np.random.default_rng(0)).important == loose.important


def test_same_seed_same_text_and_a_longer_stream_starts_alike():
    assert generated(20, seed=4) == generated(30, seed=4)[:20]


def test_streams_of_seeds_and_splits_share_no_row():
    streams = [generated(300, split=s, seed=i) for s in ("train", "iid", "ood") for i in (0, 1)]
    assert len({record.input for records in streams for record in records}) == 6 * 300


def test_generated_text_never_changes():
    texts = [r.text for s in ("train", "iid", "ood") for r in generated(5, split=s, seed=0)]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest == "8b5b1909910d64032050a5d13aef92be35079d6b21575124dc6219dfa8b470dc"


BAD = [
    ({"seed": -1}, "seed must be 0 or greater, not -1"),
    ({"seed": 0, "split": "test"}, "split must be one of train, iid, ood, not 'test'"),
    ({"seed": 0, "granularity": "word"}, "granularity must be one of span, value, not 'word'"),
    ({"seed": 0, "effect": "label"}, "effect must be one of target, answer, not 'label'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused_before_the_first_row(options, message):
    with pytest.raises(InputError, match=message):
        stg.stg_records(**options)


def test_missing_factor_is_refused():
    with pytest.raises(InputError, match=r"must hold 'Weight: NUMBER' but does not: 'Smoking: 8'"):
        stg.STG().read("Smoking: 8")


def test_an_annotated_twin_has_its_new_value():
    (record,) = generated(1, seed=1)
    start = record.input.index("Hormones")
    whole = Span(record.input[start : start + 11], start)
    note = Annotation(Span("Hormones: ", start), (whole,))
    annotated = Record(record.input, record.target, (note,))
    (new,) = stg.intervene(annotated, np.random.default_rng(0)).important
    assert new.effect == note.effect
    assert re.fullmatch(r"Hormones: \d+", new.causes[0].text)
    assert new.causes[0].text != whole.text


def test_a_part_of_a_value_cannot_be_annotated_and_replaced():
    (record,) = generated(1, seed=1)
    text = record.input.replace("Hormones: ", "Hormones: 1")
    note = Annotation(Span(record.target), (Span("1", text.index("Hormones: ") + 10),))
    with pytest.raises(InputError, match="annotation '1' covers a part of what is replaced"):
        stg.intervene(Record(text, record.target, (note,)), np.random.default_rng(0))
