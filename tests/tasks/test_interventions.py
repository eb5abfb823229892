"""Interventions of the tasks that know their causal model: what they change, and the new answer."""

import functools
import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.tasks import arc, chains, cladder, corr2cause, scm, stg, stg_h
from cat_jax.tasks.answers import parse_choice
from cat_jax.tasks.arc import read_choices
from cat_jax.tasks.chains import NAMES, NEW_NAMES
from cat_jax.tasks.chains import read as read_chain
from cat_jax.tasks.controls.places import places
from cat_jax.tasks.corr2cause_texts import find_statements
from cat_jax.tasks.corr2cause_texts import read as read_question
from cat_jax.tasks.wording import annotated_record

KINDS = ("spurious", "causal", "irrelevant", "reorder", "rename")
WIDE = {"mediators": 1, "confounders": 1, "colliders": 1, "noise": 0.2, "paths": True}
GAMES = {
    "stg": stg(train_records=50, trace=True),
    "stg, whole factors": stg(train_records=50, granularity="span"),
    "stg_h": stg_h(train_records=50, trace=True),
    "stg_h, published": stg_h(train_records=50).as_published(),
    "scm, json": scm(train_records=50, wording="json", label="number", **WIDE),
    "scm, table": scm(train_records=50, wording="table", order="fixed", trace=True),
}
SEEDS = st.integers(0, 2**32 - 1)


@functools.cache
def oracle(name):
    return GAMES[name].reference_rules()["oracle"]


@functools.cache
def first_records(name):
    task = GAMES[name]
    splits = [itertools.islice(task.stream(split, 3), 15) for split in ("iid", "ood")]
    return list(itertools.chain.from_iterable(splits))


def read(task, record):
    """Factors of a text, by their own names."""
    own = {other: name for name, other in task.other_names.items()}
    text = record.input
    for other in sorted(own, key=len, reverse=True):
        text = text.replace(f"{other}{task.link}", f"{own[other]}{task.link}")
    return task.read(text)


def resolved(record):
    found = places(record)
    return sorted((x.effect.start, x.effect.stop, str(x.causes)) for x in found)


def rewritten(task, record, kind):
    """The record's text, annotated from scratch."""
    causes = task.model.ancestors if getattr(task, "paths", False) else task.model.causes
    if kind == "rename":
        causes = tuple(task.other_names[name] for name in causes)
    return annotated_record(record.input, record.target, causes, **task.style, link=task.link)


@pytest.mark.parametrize("name", GAMES)
@settings(max_examples=15, deadline=None)  # the first checks the model
@given(number=st.integers(0, 29), kind=st.sampled_from(KINDS), seed=SEEDS)
def test_games(name, number, kind, seed):
    task, record = GAMES[name], first_records(name)[number]
    model, intervene = task.model, task.interventions[kind]
    new = intervene(record, np.random.default_rng(seed))
    assert intervene(record, np.random.default_rng(seed)) == new
    old_values, values = task.read(record.input), read(task, new)

    judged = oracle(name)(new)
    assert judged == model.judge(values)
    assert new.target == (judged if kind == "causal" else record.target)
    allowed = {
        "spurious": model.spurious,
        "causal": model.ancestors,
        "irrelevant": model.named("irrelevant"),
    }
    changed = {factor for factor in values if values[factor] != old_values[factor]}
    assert changed <= set(allowed.get(kind, ()))
    assert (list(values) == list(old_values)) == (kind != "reorder")
    assert resolved(new) == resolved(rewritten(task, new, kind))
    if kind != "rename":  # and nothing but the numbers is other
        assert Counter(without_numbers(new.input)) == Counter(without_numbers(record.input))


def without_numbers(text):
    return "".join(letter for letter in text if letter not in "-.0123456789")


@pytest.mark.parametrize("name", GAMES)
def test_each_kind_changes_all_that_it_should(name):
    task, rng = GAMES[name], np.random.default_rng(1)
    model = task.model
    for kind, factors in (
        ("spurious", model.spurious),
        ("causal", model.ancestors),
        ("irrelevant", model.named("irrelevant")),
    ):
        changed, flipped = set(), 0
        for record in first_records(name):
            new = task.interventions[kind](record, rng)
            before, after = task.read(record.input), task.read(new.input)
            changed |= {factor for factor in after if before[factor] != after[factor]}
            flipped += new.target != record.target
        assert changed == set(factors)
        assert (flipped > 5) == (kind == "causal")


def test_causes_are_drawn_as_in_training():
    """Together: the mediator stays within 2 above its cause, and repeats of the confounder."""
    task, rng = GAMES["scm, json"], np.random.default_rng(2)
    (mediator,), (confounder,) = task.model.named("mediator"), task.model.named("confounder")
    (root,) = task.graph.predecessors(mediator)
    repeats = 0
    for record in first_records("scm, json") * 3:
        values = task.read(task.interventions["causal"](record, rng).input)
        assert 0 <= values[mediator] - values[root] <= 2
        (repeating,) = (x for x in task.graph.successors(confounder) if x in task.model.ancestors)
        repeats += values[repeating] == values[confounder]
    assert 0.6 < repeats / 90 < 0.95  # mostly


@pytest.mark.parametrize("name", GAMES)
def test_new_names(name):
    task = GAMES[name]
    shown, others = set(task.model.shown), task.other_names
    assert set(others) == shown
    assert len(set(others.values())) == len(shown)
    assert not shown & set(others.values())
    record = first_records(name)[0]
    new = task.interventions["rename"](record, np.random.default_rng(0))
    rules = task.reference_rules()
    for rule, answer in rules.items():  # they know both names
        assert answer(new) == answer(record), rule
    assert not any(f"{factor}{task.link}" in new.input for factor in shown)


def test_names_for_as_many_factors_as_there_can_be():
    sizes = dict.fromkeys(("causes", "twins", "distractors", "mediators", "confounders"), 6)
    task = scm(**sizes, colliders=6)
    names = task.other_names
    assert len(names) == len(set(names.values())) == len(task.model.shown) == 36
    assert set(itertools.islice(names.values(), 2)) == {"Factor A", "Factor B"}


def test_a_game_without_irrelevant_factors_does_not_redraw_them():
    task = scm(distractors=0)
    assert list(task.interventions) == ["spurious", "causal", "reorder", "rename"]


def test_records_without_annotation_get_none():
    task = GAMES["stg"]
    record = first_records("stg")[0]
    for intervene in task.interventions.values():
        bare = intervene(Record(record.input, record.target), np.random.default_rng(0))
        assert bare.important == ()


CHAINS = chains(train_records=10, test_records=40)
CHAIN_RECORDS = [r for split in CHAINS.test_splits for r in CHAINS.records(split)[:8]]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(CHAIN_RECORDS), st.sampled_from(KINDS), SEEDS)
def test_chains(record, kind, seed):
    intervene = CHAINS.interventions[kind]
    new = intervene(record, np.random.default_rng(seed))
    assert intervene(record, np.random.default_rng(seed)) == new
    (edges, *asked), (new_edges, *new_asked) = read_chain(record.input), read_chain(new.input)
    graph = nx.DiGraph(new_edges)
    assert nx.is_directed_acyclic_graph(graph)
    assert (new.target == "Yes") == (new_asked[1] in nx.descendants(graph, new_asked[0]))
    if kind != "causal":
        assert new.target == record.target
    used = {cause.text for cause in record.important[0].causes}
    turned = [(old, x) for old, x in zip(edges, new_edges, strict=True) if old != x]
    if kind in ("causal", "irrelevant"):
        assert asked == new_asked
        assert len(turned) == 1 or (kind == "irrelevant" and new == record)
        for (a, b), other in turned:
            assert other == (b, a)
            assert (f"{a} causes {b}." in used) == (kind == "causal")
    elif kind == "reorder":
        assert asked == new_asked
        assert sorted(edges) == sorted(new_edges)
        assert edges != new_edges
        assert {cause.text for cause in new.important[0].causes} == used
    else:
        names = dict(zip(itertools.chain(*edges), itertools.chain(*new_edges), strict=True))
        assert [(names[a], names[b]) for a, b in edges] == new_edges
        assert [names[x] for x in asked] == new_asked
        assert len(set(names.values())) == len(names)
        is_new = asked[0] in NEW_NAMES
        assert set(names.values()) <= set(NEW_NAMES if is_new == (kind == "spurious") else NAMES)


def test_irrelevant_premises_are_turned_where_there_are_any():
    rng = np.random.default_rng(0)
    new = [CHAINS.interventions["irrelevant"](record, rng) for record in CHAIN_RECORDS]
    assert sum(a != b for a, b in zip(new, CHAIN_RECORDS, strict=True)) > len(new) / 2


CORRELATIONS = corr2cause(train_records=10, test_records=10)
QUESTIONS = [r for split in CORRELATIONS.test_splits for r in CORRELATIONS.records(split)[:5]]
ASKED = CORRELATIONS.reference_rules()["oracle"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(QUESTIONS), st.sampled_from(["spurious", "reorder", "rename"]), SEEDS)
def test_correlations(record, kind, seed):
    intervene = CORRELATIONS.interventions[kind]
    new = intervene(record, np.random.default_rng(seed))
    assert intervene(record, np.random.default_rng(seed)) == new
    assert ASKED(new) == new.target == record.target
    before, after = (read_question(x.input) for x in (record, new))
    statements = [[span.text for span in find_statements(x.input)] for x in (record, new)]
    assert len(before.independent) == len(after.independent)
    assert (before.relation, before.wording) == (after.relation, after.wording)
    causes = [sorted(cause.text for cause in x.important[0].causes) for x in (record, new)]
    if kind == "reorder":
        assert before.pair == after.pair
        assert sorted(statements[0]) == sorted(statements[1])
        assert statements[0] != statements[1] or len(statements[0]) == 1
        assert causes[0] == causes[1]
    else:
        halves = [{node in "ABCDEFGHIJKLM" for node in x.nodes} for x in (before, after)]
        assert (halves[0] == halves[1]) == (kind == "spurious")
        assert len(causes[0]) == len(causes[1])


TEXTS = st.lists(st.sampled_from(["ice", "fire", "air", "iron", "gold"]), min_size=2, unique=True)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.booleans(), SEEDS, st.data())
def test_choices(texts, lettered, seed, data):
    labels = ("ABCDEF" if lettered else "123456")[: len(texts)]
    key = data.draw(st.sampled_from(labels))
    right = texts[labels.index(key)]
    listed = "".join(f"{a}. {b}\n" for a, b in zip(labels, texts, strict=True))
    notes = (
        Annotation(Span(f"Answer: {key}"), (Span(right), Span(f"{key}."), Span("Which"))),
        Annotation(Span(right), (Span(f"{key}."),)),
    )
    record = Record(f"Which is it?\n{listed}Answer: ", key, notes)
    task = arc()
    new = task.interventions["reorder"](record, np.random.default_rng(seed))
    choices = read_choices(new.input)
    assert "".join(choices) == labels
    assert sorted(choices.values()) == sorted(texts)
    assert list(choices.values()) != texts
    assert new.input.startswith("Which is it?\n")
    assert choices[new.target] == right
    assert task.parse_reply(right, new) == parse_choice(right, choices) == new.target
    label = Span(f"{new.target}.")
    assert new.important == (
        Annotation(Span(f"Answer: {new.target}"), (Span(right), label, Span("Which"))),
        Annotation(Span(right), (label,)),
    )


@pytest.mark.parametrize(
    ("last", "target"),
    [("both A and B", "A"), ("all of the above", "A"), ("1 or 2", "A"), ("salt", "ice")],
)
def test_choices_that_cannot_be_moved(last, target):
    record = Record(f"Which?\nA. ice\nB. fire\nC. {last}\nAnswer: ", target)
    assert arc().interventions["reorder"](record, np.random.default_rng(0)) is record


def test_choices_of_one_label_cannot_be_moved():
    record = Record("Which?\nA. ice\nA. fire\nB. salt\nAnswer: ", "A")
    assert arc().interventions["reorder"](record, np.random.default_rng(0)) is record


def test_published_choices(shared):
    """All of the published annotations that are found before are found after, and as many."""
    records = arc(ood=str(shared / "data/cat_reference/ARC_E/sample.jsonl")).records("ood")
    rng, moved = np.random.default_rng(0), 0
    for record in records:
        new = arc().interventions["reorder"](record, rng)
        moved += new.target != record.target
        before, after = read_choices(record.input), read_choices(new.input)
        assert after[new.target] == before[record.target]
        words = [
            sorted(word for x in places(r) for c in x.causes for word in [r.text[c.start : c.stop]])
            for r in (record, new)
        ]
        assert len(words[0]) == len(words[1])
    assert moved > 15


def test_tasks_without_interventions():
    assert cladder().interventions == {}
