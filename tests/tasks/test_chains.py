import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.errors import InputError
from cat_jax.tasks import chains, score_rules
from cat_jax.tasks.chains import NAMES, NEW_NAMES, causes, read, turn, write

TASK = chains(train_records=300, test_records=100)


def closure(edges):
    """Which node causes which, by powers of the adjacency matrix."""
    nodes = sorted({node for edge in edges for node in edge})
    step = np.zeros((len(nodes), len(nodes)), int)
    for a, b in edges:
        step[nodes.index(a), nodes.index(b)] = 1
    reached = np.zeros_like(step)
    power = np.eye(len(nodes), dtype=int)
    for _ in nodes:
        power = (power @ step > 0).astype(int)
        reached |= power
    return nodes, reached


@given(st.lists(st.tuples(*[st.sampled_from("ABCDEFG")] * 2), min_size=1, max_size=12, unique=True))
def test_causes_are_the_transitive_closure(pairs):
    edges = [(a, b) for a, b in pairs if a < b] or [("A", "B")]
    nodes, reached = closure(edges)
    for i, a in enumerate(nodes):
        for j, b in enumerate(nodes):
            assert causes(edges, a, b) == bool(reached[i, j])


@pytest.mark.parametrize("split", TASK.splits)
def test_answers_are_right_and_balanced(split):
    records = TASK.records(split)
    assert [record.target for record in records].count("Yes") == len(records) / 2
    for record in records:
        edges, a, b = read(record.input)
        nodes, reached = closure(edges)
        assert bool(reached[nodes.index(a), nodes.index(b)]) == (record.target == "Yes")
        assert write(edges, a, b) == record


def test_shifts_are_chosen():
    task = replace(TASK, shifts=("branching", "longer"))
    assert task.test_splits == ("iid", "branching", "longer")
    assert task.records("longer", 3) == TASK.records("longer", 3)
    with pytest.raises(InputError, match=r"data\.shifts must be different, got longer, longer"):
        replace(TASK, shifts=("longer", "longer"))


def test_structure_of_the_splits():
    def graphs(split):
        return [read(record.input)[0] for record in TASK.records(split)]

    sizes = {
        split: {len({node for edge in edges for node in edge}) for edges in graphs(split)}
        for split in TASK.splits
    }
    assert sizes["train"] == sizes["iid"] == {3, 4, 5, 6}
    assert sizes["longer"] == {7, 8, 9, 10, 11, 12}
    for edges in graphs("reversed"):
        assert all(edges[i][0] == edges[i + 1][1] for i in range(len(edges) - 1))
    in_order = [
        all(set(edges[i]) & set(edges[i + 1]) for i in range(len(edges) - 1))
        for edges in graphs("shuffled")
    ]
    assert np.mean(in_order) < 0.7
    assert max(len(edges) - 6 for edges in graphs("branching")) > 0
    named = {node for edges in graphs("renamed") for edge in edges for node in edge}
    assert named <= set(NEW_NAMES)
    assert not named & set(NAMES)
    forward = [edges[0][1] in edges[1] for edges in graphs("train") if len(edges) > 1]
    assert 0.3 < np.mean(forward) < 0.7  # half of the edges are flipped


def test_flips():
    straight = chains(flips=0.0, train_records=20).records("train")
    for record in straight:
        edges, *_ = read(record.input)
        assert all(edges[i][1] == edges[i + 1][0] for i in range(len(edges) - 1))


def test_yes_depends_on_the_path_and_no_on_where_the_paths_end():
    edges = [("A", "B"), ("C", "B"), ("B", "D"), ("D", "E")]

    def annotated(a, b):
        record = write(edges, a, b)
        (note,) = record.important
        assert all(record.text.startswith(s.text, s.start) for s in (*note.causes, note.effect))
        return [span.text for span in note.causes]

    assert annotated("A", "D") == ["A causes B.", "B causes D."]
    assert annotated("D", "A") == ["D causes E."]
    assert annotated("E", "B") == ["A causes B.", "C causes B."]
    diamond = [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D")]
    assert len(write(diamond, "A", "D").important[0].causes) == 4
    assert len(write([("A", "B"), ("C", "B")], "B", "A").important[0].causes) == 2


def test_interventions():
    rng, rules = np.random.default_rng(0), TASK.reference_rules()
    flipped = 0
    for split in ("iid", "branching"):
        for record in TASK.records(split):
            new = TASK.interventions["spurious"](record, rng)
            assert new.input != record.input
            assert rules["oracle"](new) == new.target == record.target
            spans = [span.text for span in TASK.spurious_spans(record)]
            assert len(TASK.spurious_spans(new)) == len(spans)
            turned = turn(record, rng)
            assert rules["oracle"](turned) == turned.target
            (old, *_), (now, *_) = read(record.input), read(turned.input)
            assert sum(a != b for a, b in zip(old, now, strict=True)) == 1
            flipped += turned.target != record.target
    assert flipped > 40


def test_spurious_spans_are_the_other_premises():
    for record in TASK.records("longer")[:20]:
        used = [span.text for span in record.important[0].causes]
        others = [span.text for span in TASK.spurious_spans(record)]
        premises = [f"{a} causes {b}." for a, b in read(record.input)[0]]
        assert sorted([*used, *others]) == sorted(premises)


def test_reference_rules():
    scores = score_rules(TASK)
    assert set(scores["oracle"].values()) == {1.0}
    assert set(scores["majority"].values()) == {0.5}
    assert scores["shortcut"]["reversed"] < 0.3 < 0.5 <= scores["shortcut"]["iid"]


def test_texts_that_ask_nothing_and_settings_that_cannot_be():
    with pytest.raises(InputError, match=r"must ask 'Does X cause Y\?'"):
        read("A causes B.")
    with pytest.raises(InputError, match=r"data\.flips must be"):
        chains(flips=1.5)


def test_records_of_a_seed_never_change():
    texts = [r.text + r.target for split in TASK.splits for r in TASK.records(split, 3)[:20]]
    assert zlib.crc32("".join(texts).encode()) == 3737677390
