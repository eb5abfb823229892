import dataclasses
import itertools
import json
import zlib

import networkx as nx
import numpy as np
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.errors import InputError
from cat_jax.tasks import random_scm, scm
from cat_jax.tasks.scm.answers import CLASSES, draw_score, make_answer
from cat_jax.tasks.scm.models import COPIES, NAMES, OUTCOMES
from cat_jax.tasks.scm.texts import WORDINGS
from cat_jax.testing import toy_tokenizer

SHIFTS = ("ood", "reversed", "range", "mechanism")
FULL = scm(
    causes=3,
    twins=3,
    mediators=1,
    confounders=1,
    colliders=1,
    label="classes",
    shifts=SHIFTS,
    train_records=300,
    test_records=300,
)


def table(task, split, seed=0):
    """Values of every record by factor."""
    rows = [task.read(record.input) for record in task.records(split, seed)]
    return {name: np.array([row[name] for row in rows], float) for name in sorted(rows[0])}


def correlation(values, a, b):
    return abs(np.corrcoef(values[a], values[b])[0, 1])


def test_the_graph_has_the_asked_factors():
    graph, model = FULL.graph, FULL.model
    roles = [role for _, role in graph.nodes(data="role")]
    counts = {role: roles.count(role) for role in set(roles)}
    assert counts == {
        "confounder": 1,
        "cause": 3,
        "mediator": 1,
        "irrelevant": 2,
        "twin": 3,
        "collider": 1,
        "answer": 1,
    }
    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph.predecessors(model.answer)) == set(model.causes)
    assert len(model.causes) == 3
    (mediator,) = model.named("mediator")
    (root,) = graph.predecessors(mediator)
    assert mediator in model.causes
    assert root not in model.causes
    assert root in model.ancestors
    (confounder,) = model.named("confounder")
    children = {graph.nodes[name]["role"] for name in graph.successors(confounder)}
    assert children == {"cause", "twin"}
    for name in model.spurious:
        assert not nx.has_path(graph, name, model.answer)
    (collider,) = model.named("collider")
    assert {graph.nodes[x]["role"] for x in graph.predecessors(collider)} == {"cause", "irrelevant"}


def test_answers_follow_the_causes_that_stand_in_the_text():
    for split in FULL.splits:
        for record in FULL.records(split):
            values = FULL.read(record.input)
            kept = {name: values[name] for name in FULL.model.causes}
            assert FULL.model.judge(kept) == record.target == FULL.oracle(record)


def test_twins_copy_in_training_and_nothing_out_of_distribution():
    sources = {name: how.sources[0] for name, how in FULL.drawn.spurious.items()}
    twins = FULL.model.named("twin")
    for split, low, high in (("train", 0.99, 1), ("iid", 0.99, 1), ("ood", 0, 0.2)):
        values = table(FULL, split)
        for twin in twins:
            found = correlation(values, twin, sources[twin])
            assert low - 0.05 <= found <= high + 1e-9, (split, twin)


def test_redrawn_spurious_factors_keep_their_distribution():
    train, ood = table(FULL, "train"), table(FULL, "ood")
    for name in FULL.model.spurious:
        assert abs(train[name].mean() - ood[name].mean()) < 0.25 * train[name].std()
        assert set(ood[name]) <= set(train[name]) | set(range(2, 21))


def test_other_shifts():
    sources = {name: how.sources[0] for name, how in FULL.drawn.spurious.items()}
    train, reversed_, far = (table(FULL, x) for x in ("train", "reversed", "range"))
    other = table(FULL, "mechanism")
    for twin in FULL.model.named("twin"):
        signs = [
            np.sign(np.corrcoef(values[twin], values[sources[twin]])[0, 1])
            for values in (train, reversed_)
        ]
        assert signs[0] == -signs[1]
        assert not set(train[twin]) & set(far[twin])
        assert correlation(far, twin, sources[twin]) < 0.2
    roots = [n for n in FULL.model.named("cause") if not FULL.graph.in_degree(n)]
    for name in roots:
        assert train[name].mean() == pytest.approx(5.5, abs=0.6)
        assert other[name].mean() == pytest.approx(7.15, abs=0.6)  # the larger of two draws


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_strength_is_the_share_of_copies(strength):
    task = scm(twins=2, strength=(1.0, strength), train_records=1_000)
    how = list(task.drawn.spurious.items())
    values = table(task, "train")
    for (twin, copy), expected in zip(how, (1.0, strength), strict=True):
        copied = [
            copy.copy(x) == y for x, y in zip(values[copy.sources[0]], values[twin], strict=True)
        ]
        # What is redrawn agrees by chance in one of ten.
        assert np.mean(copied) == pytest.approx(expected + (1 - expected) / 10, abs=0.05)


def test_noise_moves_answers_that_the_oracle_cannot_know():
    quiet, noisy = (scm(noise=noise, train_records=400) for noise in (0.0, 0.4))
    right = [
        np.mean([task.oracle(r) == r.target for r in task.records("train")])
        for task in (quiet, noisy)
    ]
    assert right[0] == 1.0
    assert 0.75 < right[1] < 0.97
    assert "noise" not in noisy.records("train")[0].input
    assert "noise" in noisy.graph


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("granularity", ["span", "value"])
def test_wordings_are_read_back_and_aligned(wording, granularity):
    task = dataclasses.replace(
        FULL, wording=wording, granularity=granularity, train_records=20, trace=True
    )
    records = task.records("train")
    for record in records:
        values = task.read(record.input)
        assert len(values) == 11
        (note, *traced) = record.important
        assert len(note.causes) == len(traced) == 3
        found = {
            name
            for name in values
            for span in note.causes
            if (
                name in span.text
                if granularity == "span"
                else record.input[: span.start].endswith(name + task.link)
            )
        }
        assert found == set(task.model.causes)
        spans = task.spurious_spans(record)
        assert {s.text.split(task.link)[0] for s in spans} == set(task.model.spurious)
    _, stats = align_records(records, toy_tokenizer(), max_length=500)
    assert not stats.unmatched


def test_json_is_json_and_tables_are_tables():
    (record,) = dataclasses.replace(FULL, wording="json", train_records=1).records("train")
    values, asked = record.input.splitlines()
    assert json.loads(values) == dataclasses.replace(FULL, wording="json").read(record.input)
    assert asked.startswith("Is the ")
    (record,) = dataclasses.replace(FULL, wording="table", train_records=1).records("train")
    rows = record.input.splitlines()[2:-1]
    assert all(row.count("|") == 3 for row in rows)


def test_paths_annotate_ancestors_too():
    plain, paths = (dataclasses.replace(FULL, paths=x, train_records=5) for x in (False, True))
    for a, b in zip(plain.records("train"), paths.records("train"), strict=True):
        assert (a.input, a.target) == (b.input, b.target)
        assert len(a.important[0].causes) == 3
        assert len(b.important[0].causes) == len(paths.model.ancestors) == 5


def test_interventions_redraw_what_is_spurious():
    rng = np.random.default_rng(0)
    for record in FULL.records("iid")[:50]:
        new = FULL.interventions["spurious"](record, rng)
        old, now = FULL.read(record.input), FULL.read(new.input)
        assert list(old) == list(now)
        assert {n for n in old if old[n] != now[n]} <= set(FULL.model.spurious)
        assert FULL.oracle(new) == new.target == record.target


def test_order():
    fixed = dataclasses.replace(FULL, order="fixed", train_records=30)
    assert len({tuple(fixed.read(r.input)) for r in fixed.records("train")}) == 1
    assert len({tuple(FULL.read(r.input)) for r in FULL.records("train")}) > 200


@pytest.mark.parametrize("form", ["linear", "threshold", "product", "lookup"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_every_parent_matters(form, count):
    rng = np.random.default_rng(count)
    score = draw_score(form, count, rng)
    for place in range(count):
        differences = 0
        for _ in range(30):
            row = rng.integers(1, 11, size=count).tolist()
            differences += score(row) != score([*row[:place], 11 - row[place], *row[place + 1 :]])
        assert differences > 5
    assert draw_score("product", 3, rng)([2, 3, 7]) == 42


def test_classes_are_equally_likely_where_scores_allow_it():
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")
    sample = [dict(zip(names, rng.integers(1, 11, 3).tolist(), strict=True)) for _ in range(3_000)]
    for classes, words in CLASSES.items():
        answer = make_answer("linear", "classes", classes, names, sample, rng)
        found = [answer.judge(row) for row in sample]
        assert set(found) == set(words)
        for word in words:
            assert found.count(word) / 3_000 == pytest.approx(1 / classes, abs=0.06)


def test_numbers_have_measures():
    task = scm(label="number", train_records=20)
    (first, *_) = task.records("train")
    assert task.measures(first.target, first.target)["absolute_error"] == 0
    found = task.measures(str(int(first.target) + 10**6), first.target)
    (name,) = [name for name in found if name.startswith("within_")]
    assert found == {"absolute_error": 1e6, name: 0.0}
    assert np.isnan(task.measures("many", first.target)["absolute_error"])
    assert scm().measures("High", "High") == {}


def test_models_that_cannot_tell_are_refused_with_their_scores():
    task = scm(label="binary", noise=1.0, mechanism="lookup", causes=1, twins=1, model_seed=1)
    message = r"model 1 cannot tell .*oracle \d+\.\d% and \d+\.\d%.*choose another data.model_seed"
    with pytest.raises(InputError, match=message):
        task.records("train")


def test_without_a_link_the_task_is_a_control():
    task = scm(strength=0.0)
    assert not task.is_linked
    assert len(task.records("iid")) == 400
    scores = task.reference_scores()
    assert abs(scores["shortcut"]["iid"] - scores["shortcut"]["ood"]) < 0.1


def test_reference_scores_are_those_of_the_rules():
    task = scm()
    scores = task.reference_scores()
    assert list(scores) == list(task.reference_rules())
    assert scores["oracle"] == {"iid": 1.0, "ood": 1.0}
    assert scores["shortcut"]["iid"] > 0.8 > 0.6 > scores["shortcut"]["ood"]
    records = list(itertools.islice(task.stream("ood"), 500))
    assert scores["shortcut"]["ood"] == np.mean([task.shortcut(r) == r.target for r in records])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"twins": 0}, "data.twins and data.colliders are 0"),
        ({"mediators": 4}, "data.mediators are more than data.causes"),
        (
            {"confounders": 2, "twins": 1},
            "data.confounders are more than data.causes or data.twins",
        ),
        ({"colliders": 1, "distractors": 0}, "data.colliders need a distractor"),
        ({"strength": (1.0, 0.5)}, "data.strength has 2 numbers for 3 twins"),
        ({"strength": 1.5}, "data.strength must be"),
        ({"causes": 0}, "data.causes must be"),
        ({"shifts": ("ood", "ood")}, "data.shifts must be different"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        scm(**settings)


@pytest.mark.parametrize("seed", range(4))
def test_random_members_of_the_family(seed):
    task = random_scm(seed)
    assert task == random_scm(seed)
    scores = task.reference_scores()
    assert scores["oracle"]["ood"] >= scores["shortcut"]["ood"] + 0.1
    assert set(scores["oracle"]) == {"iid", *SHIFTS}


def test_settings_of_random_members_can_be_given():
    assert random_scm(0, label="number").label == "number"
    assert random_scm(0, mechanism="linear", model_seed=5).model_seed == 5


def test_names_are_told_apart():
    for name in (*NAMES, *OUTCOMES):
        assert not [x for x in (*NAMES, *OUTCOMES) if x != name and x.lower() in name.lower()]
    assert len(set(NAMES)) == len(NAMES) >= 6 * 6


def test_copies_can_be_undone():
    for copy in COPIES:
        assert len({copy(x) for x in range(1, 11)}) == 10


def test_records_of_a_seed_never_change():
    texts = [r.text + r.target for split in FULL.splits for r in FULL.records(split, 3)[:20]]
    assert zlib.crc32("".join(texts).encode()) == 1567511111
