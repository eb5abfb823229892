import functools
import hashlib
import itertools
import json
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, norm

from cat_jax.data.matching import find_span
from cat_jax.data.records import Span
from cat_jax.errors import InputError

stg = import_module("cat_jax.tasks.stg")
stg_h = import_module("cat_jax.tasks.stg_h")

FILES = {
    "train": "STG_H_train.jsonl",
    "iid": "STG_H_iid_test.jsonl",
    "ood": "STG_H_ood_test.jsonl",
}
FACTORS = (*stg_h.CAUSAL, *stg_h.SPURIOUS, *stg_h.LISTED)
# Half a unit of the answer, and half of the last printed digit of every causal value.
ROUNDING = 0.5 + 0.05 * sum(abs(c.weight) for c in stg_h.CAUSAL.values()) + 1e-9


def published(shared, *splits):
    folder = shared / "data/cat_reference/STG_H"
    lines = [line for s in splits for line in (folder / FILES[s]).read_text().splitlines()]
    return [json.loads(line) for line in lines]


def generated(n, **options):
    return list(itertools.islice(stg_h.stg_h_records(**options), n))


def table(texts):
    """Factors of every row as printed, float [N, 14]."""
    return np.array([list(stg_h.STGH().read(text).values()) for text in texts])


@functools.cache
def splits_of(shared, split):
    """Published and generated tables of the same distribution."""
    files = ("ood",) if split == "ood" else ("train", "iid")
    theirs = [row["input"] for row in published(shared, *files)]
    return table(theirs), table(r.input for r in generated(6000, split=split, seed=11))


def error(text, target):
    score = stg_h.aqi_score(stg_h.STGH().read(text))
    return abs(min(max(score, 0), 100) - int(target))


@pytest.mark.parametrize("split", FILES)
def test_rule_gives_every_published_answer(shared, split):
    rows = published(shared, split)
    assert len(rows) == stg.SIZES["stg_h"][split]
    errors = [error(row["input"], row["target"]) for row in rows]
    assert max(errors) <= ROUNDING
    # The score decides: all but the few rows near a half round to the answer itself.
    rounded = [stg_h.aqi(stg_h.STGH().read(row["input"])) == row["target"] for row in rows]
    assert np.mean(rounded) > 0.9


@pytest.mark.parametrize("split", FILES)
def test_published_rows_are_rebuilt_to_the_letter(shared, split):
    for row in published(shared, split):
        record = stg_h.stg_h_record(stg_h.STGH().read(row["input"]))
        (note,) = record.important
        assert record.input == row["input"]
        ((effect, causes),) = row["important"][0].items()
        assert [span.text for span in note.causes] == causes
        assert effect == f"Answer: {row['target']}"
        assert note.effect.text == f"Answer: {record.target}"


@pytest.mark.parametrize("split", ["train", "ood"])
def test_marginals_match_published(shared, split):
    theirs, ours = splits_of(shared, split)
    for their, our in zip(theirs.T, ours.T, strict=True):
        assert ks_2samp(their, our).pvalue > 1e-3


def log_likelihood(x, low, high, noise):
    """Of a uniform variable plus normal noise, in closed form."""
    return np.log(norm.cdf((x - low) / noise) - norm.cdf((x - high) / noise)).sum()


@pytest.mark.parametrize("split", ["train", "ood"])
def test_noise_is_the_likeliest_on_published_and_on_generated_rows(shared, split):
    known = [(name, c.low, c.high, c.noise) for name, c in stg_h.CAUSAL.items()]
    for name, low, high, noise in [*known, ("Average Internet Speed", 80, 120, 3.0)]:
        for rows in splits_of(shared, split):
            x = rows[:, FACTORS.index(name)]
            best = log_likelihood(x, low, high, noise)
            assert best > log_likelihood(x, low, high, 0.75 * noise)
            assert best > log_likelihood(x, low, high, 1.3 * noise)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_whole_numbers_have_the_published_range(shared, split):
    names = ["City Anniversary", "Number of Libraries"]
    if split == "ood":
        names.append("Renewable Stock Index")
    for name in names:
        theirs, ours = (x[:, FACTORS.index(name)] for x in splits_of(shared, split))
        assert set(theirs) == set(ours)


def test_spurious_noise_in_distribution_matches_published(shared):
    theirs, ours = splits_of(shared, "train")
    for name, twin in stg_h.SPURIOUS.items():
        column, source = FACTORS.index(name), FACTORS.index(twin.source)
        their, our = (x[:, column] - twin.slope * x[:, source] for x in (theirs, ours))
        assert ks_2samp(their, our).pvalue > 1e-3
        np.testing.assert_allclose(their.std(), our.std(), rtol=4 / np.sqrt(2 * len(theirs)))
        assert abs(their.mean() - our.mean()) < 4 * their.std() / np.sqrt(len(theirs))


@pytest.mark.parametrize("split", ["train", "ood"])
def test_correlations_match_published(shared, split):
    theirs, ours = splits_of(shared, split)
    gap = np.corrcoef(theirs.T) - np.corrcoef(ours.T)
    assert np.abs(gap).max() < 4 * np.sqrt(1 / len(theirs) + 1 / len(ours))


def test_ood_factors_are_independent_in_their_own_range():
    ours = table(r.input for r in generated(6000, split="ood", seed=3))
    assert np.abs(np.corrcoef(ours.T) - np.eye(14)).max() < 4 / np.sqrt(6000)
    for column, twin in enumerate(stg_h.SPURIOUS.values(), start=6):
        assert (ours[:, column].min(), ours[:, column].max()) == twin.ood


def test_answers_of_generated_rows_follow_the_rule():
    for split in FILES:
        assert all(
            error(r.input, r.target) <= ROUNDING for r in generated(200, split=split, seed=1)
        )


def test_aqi_is_clipped_at_both_ends():
    causal = dict.fromkeys(stg_h.CAUSAL, 0.0)
    assert stg_h.aqi(causal) == 40
    assert stg_h.aqi(causal | {"Industrial Emissions": 101.0}) == 100
    assert stg_h.aqi(causal | {"Meteorological Dispersion": 80.0}) == 0
    assert stg_h.aqi(causal | {"Coal Dependency": 1.5, "Vehicle Emissions": 1.0}) == 41


OPTIONS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["train", "iid", "ood"]),
        "seed": st.integers(0, 2**40),
        "granularity": st.sampled_from(["span", "value"]),
        "effect": st.sampled_from(["target", "answer"]),
    }
)


def spans_of(record):
    return [span for note in record.important for span in (note.effect, *note.causes)]


@given(OPTIONS, st.integers(0, 2**32))
def test_offsets_hold_and_intervention_changes_only_spurious_values(options, seed):
    (record,) = generated(1, **options)
    changed = stg_h.intervene(record, np.random.default_rng(seed))
    for one in (record, changed):
        for span in spans_of(one):
            start = find_span(one.text, span)[-1].start  # the answer's number may stand before, too
            assert one.text.startswith(span.text, start)
    assert [s.text for s in spans_of(changed)] == [s.text for s in spans_of(record)]
    assert changed.target == record.target
    before, after = stg_h.STGH().read(record.text), stg_h.STGH().read(changed.text)
    kept = (*stg_h.CAUSAL, *stg_h.IRRELEVANT)
    assert [before[name] for name in kept] == [after[name] for name in kept]
    for name, twin in stg_h.SPURIOUS.items():
        assert twin.ood[0] <= after[name] <= twin.ood[1]
    assert stg_h.stg_h_record(after).input == changed.input


def test_span_annotation_of_a_percentage():
    (record,) = generated(1, seed=0, granularity="span", effect="target")
    (note,) = record.important
    assert [cause.text.split(": ")[0] for cause in note.causes] == list(stg_h.CAUSAL)
    assert note.causes[2].text.endswith("%")
    assert note.effect == Span(record.target)


def test_streams_of_seeds_and_splits_share_no_row():
    streams = [generated(100, split=s, seed=i) for s in FILES for i in (0, 1)]
    assert len({record.input for records in streams for record in records}) == 600
    assert generated(100, split="iid", seed=1) == streams[3]


def test_generated_text_never_changes():
    texts = [r.text for split in FILES for r in generated(5, split=split, seed=0)]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest == "8a890b4659a76334e34004319b300831cc8aacf4b6357a5f0ec94b3b4a127e2c"


def test_bad_options_and_missing_factors_are_refused():
    with pytest.raises(InputError, match="split must be one of train, iid, ood, not 'test'"):
        stg_h.stg_h_records(split="test", seed=0)
    with pytest.raises(InputError, match="granularity must be one of span, value, not 'word'"):
        stg_h.stg_h_records(granularity="word", seed=0)
    with pytest.raises(InputError, match="must hold 'Industrial Emissions: NUMBER'"):
        stg_h.STGH().read("Coal Dependency: 13.4%")
