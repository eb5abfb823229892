"""Controls: what they change, and that nothing else is."""

import copy
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax import tasks
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks import controls
from cat_jax.tasks.controls.places import answer_causes, overlap, places, word_places
from cat_jax.tasks.stg import CAUSAL, SPURIOUS
from cat_jax.tasks.wording import find_factors
from cat_jax.testing import ToyTask

STG = tasks.stg(train_records=40, granularity="span")
TRACED = tasks.stg(train_records=40, trace=True)
STGH = tasks.stg_h(train_records=20)
NAMED = [name for name in controls.__all__ if name != "named_causes"]
TALK = Conversation((Message("user", "a"), Message("assistant", "b")))


def apply(name, task=STG, records=None, seed=0):
    records = task.records("train", 0) if records is None else records
    if name == "named_causes":
        return [controls.named_causes(record) for record in records]
    shared = ("few_annotations", "missing_causes", "wrong_causes")
    options = {"share": 0.5} if name in shared else {}
    return getattr(controls, name)(task, records, seed, **options)


def spans(record):
    return [span for note in record.important for span in (note.effect, *note.causes)]


WORDS = st.lists(st.sampled_from(["a", "bb", "5", "c5", "é", "Smoking: 8,", "(x)"]), min_size=4)


@st.composite
def annotated_records(draw):
    words = draw(WORDS)
    text = " ".join(words) + ". Answer: "
    where = word_places(text)
    chosen = draw(st.lists(st.sampled_from(where), max_size=3, unique_by=lambda x: x.start))
    causes = tuple(Span(text[x.start : x.stop], x.start) for x in chosen)
    target = draw(st.sampled_from(["High", "Low"]))
    notes = (Annotation(Span(target, len(text)), causes),) if causes else ()
    return Record(text, target, notes)


@settings(deadline=None)
@given(records=st.lists(annotated_records(), min_size=1, max_size=6), seed=st.integers(0, 9))
@pytest.mark.parametrize("name", controls.__all__)
def test_every_span_stands_where_it_says_and_nothing_is_changed_in_place(name, records, seed):
    """A record checks its own offsets; the search for places finds all of its spans."""
    before = copy.deepcopy(records)
    try:
        changed = apply(name, ToyTask(), records, seed)
    except InputError:
        changed = []
    assert records == before
    for record in changed:
        assert all(record.text[s.start :].startswith(s.text) for s in spans(record))
        causes = [len(place.causes) for place in places(record)]
        assert len(causes) == len(record.important)


def one_group(name, task):
    return name == "group_reweighting" and len({*map(task.group, task.records("train"))}) < 2


@pytest.mark.parametrize("task", [STG, TRACED, STGH], ids=["stg", "traced", "stg_h"])
@pytest.mark.parametrize("name", controls.__all__)
def test_the_same_seed_gives_the_same_records(name, task):
    if (name in ("balanced", "shuffled_causes") and task is STGH) or one_group(name, task):
        return  # its answers are numbers, its causes stand in the same places
    assert apply(name, task, seed=3) == apply(name, task, seed=3)
    if name in ("random_spans", "shuffled_causes", "counterfactual"):
        assert apply(name, task, seed=3) != apply(name, task, seed=4)


@pytest.mark.parametrize("task", [STG, TRACED, STGH], ids=["stg", "traced", "stg_h"])
def test_random_spans_are_as_many_words_and_no_causes(task):
    for before, after in zip(task.records("train"), apply("random_spans", task), strict=True):
        assert (after.text, after.target) == (before.text, before.target)
        for old, new in zip(places(before), places(after), strict=True):
            assert new.effect == old.effect
            lengths = [
                sorted(len(word_places(before.text[x.start : x.stop])) for x in place.causes)
                for place in (old, new)
            ]
            assert lengths[0] == lengths[1]
            assert not any(overlap(x, y) for x in old.causes for y in new.causes)
            assert not any(overlap(x, y) for x in new.causes for y in new.causes if x != y)
            assert all(x.stop <= new.effect.start for x in new.causes)


def test_random_spans_fall_everywhere():
    """Over many seeds every word of a record is drawn, but its causes."""
    (record,) = tasks.stg(train_records=1, granularity="span").records("train")
    drawn = Counter(
        x.start
        for seed in range(400)
        for place in places(apply("random_spans", records=[record], seed=seed)[0])
        for x in place.causes
    )
    causes = places(record)[0].causes
    words = word_places(record.input)
    free = [
        a.start
        for a, b in itertools.pairwise(words)
        if not any(overlap(range(a.start, b.stop), cause) for cause in causes)
    ]
    assert set(drawn) <= set(free)
    assert len(drawn) > 0.9 * len(free)


def test_a_text_of_causes_alone_keeps_places_among_them():
    record = Record("5 ", "5", (Annotation(Span("5", 2), (Span("5", 0),)),))
    assert apply("random_spans", records=[record]) == [record]


def test_causes_are_shuffled_among_records():
    """Where words are as many, the places are exactly those of another record, each once."""
    texts = [("w0 w1 w2 w3 is ", n) for n in range(4)]
    records = [
        Record(text, "x", (Annotation(Span("x", len(text)), (Span(f"w{n}", 3 * n),)),))
        for text, n in texts
    ]
    for seed in range(9):
        changed = apply("shuffled_causes", records=records, seed=seed)
        found = [places(record)[0].causes[0].start // 3 for record in changed]
        assert sorted(found) == [0, 1, 2, 3]
        assert all(a != b for a, b in enumerate(found))


@pytest.mark.parametrize("task", [ToyTask(), STGH], ids=["toy", "stg_h"])
def test_a_shuffle_of_equal_places_is_refused(task):
    with pytest.raises(InputError, match="same places, so a shuffle changes nothing; use random"):
        apply("shuffled_causes", task)


@pytest.mark.parametrize("task", [STG, TRACED, STGH], ids=["stg", "traced", "stg_h"])
def test_spurious_spans_are_annotated_alone(task):
    for before, after in zip(task.records("train"), apply("spurious_spans", task), strict=True):
        (note,) = after.important
        assert note.effect.text == after.target
        assert [*note.causes] == task.spurious_spans(before)
        assert after.text == before.text


def test_counterfactuals_keep_their_causes_and_answers():
    records = STG.records("train")
    changed = apply("counterfactual")
    assert changed[::2] == records
    redrawn = 0
    for before, after in zip(records, changed[1::2], strict=True):
        old, new = STG.read(before.input), STG.read(after.input)
        assert {n: v for n, v in old.items() if n not in SPURIOUS} == {
            n: v for n, v in new.items() if n not in SPURIOUS
        }
        assert STG.oracle(after) == after.target == before.target
        redrawn += any(old[name] != new[name] for name in SPURIOUS)
    assert redrawn > 35


@pytest.mark.parametrize("task", [STG, TRACED, STGH], ids=["stg", "traced", "stg_h"])
def test_masked_texts_have_no_spurious_words(task):
    for before, after in zip(task.records("train"), apply("masked_spurious", task), strict=True):
        masked = before.input
        for span in task.spurious_spans(before):
            masked = masked.replace(span.text, "...")
        assert after.input == masked
        causes = {span.text for span in spans(before)} - {
            x.text for x in task.spurious_spans(before)
        }
        assert {span.text for span in spans(after)} <= causes


def test_causes_alone():
    for before, after in zip(STG.records("train"), apply("causes_only"), strict=True):
        values = STG.read(before.input)
        kept = [f"{name}: {value}" for name, value in values.items() if name in CAUSAL]
        assert after.input.startswith(", ".join(kept))
        assert not any(name in after.input for name in SPURIOUS)
        assert after.input.endswith("Answer: ")
        assert [before.target, *kept] == [span.text for span in spans(after)]


def test_named_causes_are_a_prompt():
    for before, after in zip(STG.records("train"), apply("named_causes"), strict=True):
        named = [before.input[x.start : x.stop] for x in answer_causes(before)]
        assert after.input == f"The answer depends on {', '.join(named)}. {before.input}"
        shift = len(after.input) - len(before.input)
        assert [x.start - shift for x in spans(after)][1:] == [
            x.start for x in answer_causes(before)
        ]


@given(targets=st.lists(st.sampled_from("abc"), min_size=8), seed=st.integers(0, 9))
def test_balanced_classes_are_equally_frequent(targets, seed):
    records = [Record(f"{n} ", target) for n, target in enumerate(targets)]
    changed = apply("balanced", records=records, seed=seed)
    assert changed[: len(records)] == records
    counts = Counter(record.target for record in changed)
    assert set(counts.values()) == {max(Counter(targets).values())}
    for target in counts:
        times = Counter(record.input for record in changed if record.target == target).values()
        assert max(times) - min(times) <= 1


@pytest.mark.parametrize("task", [STG, TRACED, STGH], ids=["stg", "traced", "stg_h"])
def test_a_wrong_prior_takes_one_twin_for_its_cause(task):
    """In STG that is Clothing size, which is Weight; in STG_H the twin of the largest slope."""
    wrong = {"stg": ("Weight", "Clothing size")}.get(
        task.name, ("Industrial Emissions", "Renewable Stock Index")
    )
    for before, after in zip(task.records("train"), apply("wrong_prior", task), strict=True):
        assert (after.text, after.target) == (before.text, before.target)
        named = [_names(task, record, answer_causes(record)) for record in (before, after)]
        assert len(named[0]) == len(task.model.causes)
        assert named[1] == named[0] - {wrong[0]} | {wrong[1]}
        traces = [_names(task, record, _traced(record)) for record in (before, after)]
        assert traces[1] == traces[0] - {wrong[0]}
        lengths = [[len(x.split(": ")) for x in _answer_spans(r)] for r in (before, after)]
        assert lengths[0] == lengths[1]  # values for values, whole factors for whole factors


def _answer_spans(record):
    return [record.text[x.start : x.stop] for x in answer_causes(record)]


def _traced(record):
    found = [place for place in places(record) if place.effect.stop <= len(record.input)]
    return [cause for place in found for cause in place.causes]


def _names(task, record, causes):
    factors = find_factors(record.input, tuple(task.read(record.input)))
    stand = {name: range(*match.span()) for name, match in factors.items()}
    return {name for name, place in stand.items() for cause in causes if overlap(place, cause)}


@pytest.mark.parametrize("wording", ["list", "sentences", "table", "json"])
def test_a_wrong_prior_reads_every_wording(wording):
    """The strongest pair is a twin that copies, whatever stands around the numbers."""
    task = tasks.scm(train_records=40, wording=wording)
    copies = {f.parents[0]: f.name for f in task.model.factors if f.role == "twin"}
    for before, after in zip(task.records("train"), apply("wrong_prior", task), strict=True):
        factors = find_factors(before.input, tuple(task.read(before.input)), task.link)
        starts = {match.start("value"): name for name, match in factors.items()}
        old, new = ({starts[x.start] for x in answer_causes(record)} for record in (before, after))
        ((lost,), (gained,)) = old - new, new - old
        assert copies[lost] == gained


def test_groups_weigh_the_same():
    records = STG.records("train") + tasks.stg(test_records=30).records("ood")
    changed = apply("group_reweighting", records=records, seed=3)
    assert changed[: len(records)] == records
    before, after = (Counter(map(STG.group, x)) for x in (records, changed))
    assert len(set(before.values())) == 2
    assert set(after.values()) == {max(before.values())}
    rarer = min(before, key=before.get)
    times = Counter(x.input for x in changed if STG.group(x) == rarer).values()
    assert max(times) - min(times) <= 1


def test_one_group_is_none_to_weigh():
    with pytest.raises(InputError, match="task toy has only one, 'cue agrees'; give it a group"):
        apply("group_reweighting", ToyTask())


NEEDS = {
    "random_spans": ("no record is annotated", [Record("a ", "b")]),
    "shuffled_causes": ("no record is annotated", [Record("a ", "b")]),
    "spurious_spans": ("does not say what is spurious", None),
    "few_annotations": ("no record is annotated", [Record("a ", "b")]),
    "missing_causes": ("no record is annotated", [Record("a ", "b")]),
    "wrong_causes": ("no record is annotated", [Record("a ", "b")]),
    "masked_spurious": ("does not say what is spurious", None),
    "counterfactual": ("has no intervention 'spurious'", None),
    "causes_only": ("no record is annotated", [Record("a ", "b")]),
    "balanced": ("are no classes to balance", [Record("a ", str(n)) for n in range(3)]),
    "group_reweighting": ("task files has none", None),
    "wrong_prior": ("does not say what is spurious", None),
    "named_causes": ("no annotated cause of its answer", [Record("a ", "b")]),
}


@pytest.mark.parametrize("name", controls.__all__)
def test_what_a_control_needs_is_said(name):
    message, records = NEEDS[name]
    records = STG.records("train") if records is None else records
    with pytest.raises(InputError, match=f"^{name}: .*{message}"):
        apply(name, tasks.files(train="a.jsonl"), records)
    with pytest.raises(InputError, match=rf"^{name}: (a record|record 1) is a conversation"):
        apply(name, STG, [TALK])


def test_a_share_of_the_records_keeps_its_annotations():
    records = STG.records("train", 0)
    kept = {}
    for share, count in ((0.0, 1), (0.1, 4), (0.5, 20), (1.0, 40)):
        few = controls.few_annotations(STG, records, 3, share=share)
        assert [x.text for x in few] == [x.text for x in records]
        kept[share] = {n for n, x in enumerate(few) if x.important}
        assert len(kept[share]) == count
        assert all(few[n] == records[n] for n in kept[share])
    assert kept[0.0] < kept[0.1] < kept[0.5] < kept[1.0]
    others = controls.few_annotations(STG, records, 4, share=0.5)
    assert {n for n, x in enumerate(others) if x.important} != kept[0.5]


def test_a_share_of_the_causes_is_missing():
    task = tasks.stg(train_records=400, granularity="span")
    records = task.records("train", 0)
    right = [{(x.start, x.stop) for x in answer_causes(record)} for record in records]
    before = right
    for share in (0.0, 0.2, 0.5, 1.0):
        thinned = controls.missing_causes(task, records, 3, share=share)
        assert [x.text for x in thinned] == [x.text for x in records]
        found = [{(x.start, x.stop) for x in answer_causes(record)} for record in thinned]
        assert all(x <= y for x, y in zip(found, before, strict=True))  # the same ones and more
        assert all(bool(x.important) == bool(y) for x, y in zip(thinned, found, strict=True))
        missing = sum(len(x - y) for x, y in zip(right, found, strict=True))
        assert abs(missing / 1200 - share) <= 5 * (share * (1 - share) / 1200) ** 0.5
        before = found


def test_a_share_of_the_causes_is_wrong():
    task = tasks.stg(train_records=400, granularity="span")
    records = task.records("train", 0)
    right = [{(x.start, x.stop) for x in answer_causes(record)} for record in records]
    for share in (0.0, 0.2, 1.0):
        spoiled = controls.wrong_causes(task, records, 3, share=share)
        found = [{(x.start, x.stop) for x in answer_causes(record)} for record in spoiled]
        assert all(len(x) == len(y) == 3 for x, y in zip(found, right, strict=True))
        wrong = sum(len(x - y) for x, y in zip(found, right, strict=True))
        # Five standard deviations of 1,200 draws.
        assert abs(wrong / 1200 - share) <= 5 * (share * (1 - share) / 1200) ** 0.5
