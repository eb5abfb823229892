"""Edits of texts, against a model that keeps words apart and knows where each of them goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks.controls.places import places
from cat_jax.tasks.edits import draw_order, reorder_text, replace_answer, replace_text, word_after

WORDS = st.sampled_from(["a", "bb", "c", "dddd", "e1"])


def starts_of(words):
    """Where each word starts in the text that joins them by spaces."""
    return [len(" ".join(words[:n])) + (n > 0) for n in range(len(words))]


def characters(words, run):
    starts = starts_of(words)
    return range(starts[run.start], starts[run.stop - 1] + len(words[run.stop - 1]))


def occurrences(words, run):
    """All runs with the words of one."""
    wanted = words[run.start : run.stop]
    return [
        range(n, n + len(run))
        for n in range(len(words) - len(run) + 1)
        if words[n : n + len(run)] == wanted
    ]


@st.composite
def runs(draw, size):
    start = draw(st.integers(0, size - 1))
    return range(start, draw(st.integers(start + 1, size)))


@st.composite
def annotated_texts(draw):
    """A record of words, the last its answer, and runs of words that are annotated as causes."""
    words = draw(st.lists(WORDS, min_size=3, max_size=12))
    words.append(draw(st.sampled_from(["yes", "no"])))
    text = " ".join(words)
    border = len(text) - len(words[-1])
    causes = []
    for run in draw(st.lists(runs(len(words) - 1), min_size=1, max_size=3)):
        place, anchored = characters(words, run), draw(st.booleans())
        span = Span(text[place.start : place.stop], place.start if anchored else None)
        causes.append((span, [run] if anchored else occurrences(words, run)))
    note = Annotation(Span(words[-1]), tuple(span for span, _ in causes))
    record = Record(text[:border], words[-1], (note,), where="there")
    return words, record, [run for _, found in causes for run in found]


def expected(words, found):
    return {(place.start, place.stop) for place in (characters(words, run) for run in found)}


@settings(deadline=None)
@given(annotated_texts(), st.data())
def test_annotations_have_the_new_words(annotated, data):
    words, record, causes = annotated
    new = [data.draw(st.one_of(st.just(word), WORDS)) for word in words[:-1]]
    new.append(data.draw(st.sampled_from(["no", "perhaps"])))
    edits = [
        (start, start + len(old), word)
        for start, old, word in zip(starts_of(words), words, new, strict=True)
        if old != word
    ]
    edited = replace_text(record, edits)
    assert (edited.text, edited.target, edited.where) == (" ".join(new), new[-1], "there")
    (note,) = places(edited)
    assert {(x.start, x.stop) for x in note.causes} == expected(new, causes)
    assert note.effect == characters(new, range(len(new) - 1, len(new)))


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=5), st.data())
def test_annotations_move_with_their_part(facts, data):
    """Facts of a few words each, with a sign of its own after each, which stays."""
    order = data.draw(st.permutations(range(len(facts))))
    signs = data.draw(st.lists(st.sampled_from([";", ".", ","]), min_size=len(facts)))
    before, parts = "So: ", []
    for fact, sign in zip(facts, signs, strict=False):
        parts.append(range(len(before), len(before) + len(" ".join(fact))))
        before += f"{' '.join(fact)}{sign} "
    notes = []
    for part in parts:
        cause = Span(before[part.start : part.stop], part.start)
        notes.append(Annotation(Span(before[part.stop], part.stop), (cause,)))
    asked = Annotation(Span("yes"), tuple(note.causes[0] for note in notes[::2]))
    record = Record(f"{before}? ", "yes", (asked, *notes))
    moved = reorder_text(record, parts, order)

    after, starts = "So: ", {}
    for n, sign in zip(order, signs, strict=False):
        starts[n] = len(after)
        after += f"{' '.join(facts[n])}{sign} "
    assert (moved.input, moved.target) == (f"{after}? ", "yes")
    assert [cause.start for cause in moved.important[0].causes] == [
        starts[n] for n in range(0, len(facts), 2)
    ]
    for n, note in enumerate(moved.important[1:]):
        words = " ".join(facts[n])
        assert note.causes == (Span(words, starts[n]),)
        stop = starts[n] + len(words)
        assert note.effect == Span(after[stop], stop)


def test_words_that_come_to_stand_twice_get_their_place():
    record = Record("7 of 5 is ", "no", (Annotation(Span("no"), (Span("7"),)),))
    assert replace_text(record, [(0, 1, "9")]).important[0].causes == (Span("9"),)
    assert replace_text(record, [(5, 6, "9")]).important == record.important
    assert replace_text(record, [(5, 6, "7")]).important[0].causes == (Span("7", 0),)
    assert replace_text(record, [(0, 1, "5")]).important[0].causes == (Span("5", 0),)


def test_words_that_stood_nowhere_do_not_come_to_stand_somewhere():
    notes = (Annotation(Span("no"), (Span("8"), Span("of"))), Annotation(Span("is"), (Span("8"),)))
    record = Record("7 of 5 is ", "no", notes)
    assert replace_text(record, [(0, 1, "6")]).important == notes
    assert replace_text(record, [(0, 1, "8")]).important == (Annotation(Span("no"), (Span("of"),)),)


def test_an_effect_of_several_places_is_annotated_at_each():
    record = Record("a b then b c is ", "x", (Annotation(Span("b"), (Span("a"),)),))
    first, second = replace_text(record, [(2, 3, "d")]).important
    assert (first.effect, second.effect) == (Span("d", 2), Span("b", 9))


def test_letters_of_either_case_are_found():
    note = Annotation(Span("Answer"), (Span("how many apples"),))
    record = Record("How many apples? Answer: ", "5", (note,))
    assert replace_text(record, [(9, 15, "pears")]).important[0].causes == (Span("How many pears"),)
    assert replace_answer(record, "12").important == record.important


def test_insertions():
    note = Annotation(Span("no", 5), (Span("7", 0), Span("of", 2)))
    record = Record("7 of ", "no", (note,))
    edited = replace_text(record, [(0, 0, "See: "), (2, 2, "3 "), (4, 4, "f")])
    assert (edited.input, edited.target) == ("See: 7 3 off ", "no")
    assert edited.important == (Annotation(Span("no", 13), (Span("7", 5), Span("of", 9))),)


def test_what_cannot_follow_is_refused():
    record = Record("a bb c is ", "no", (Annotation(Span("no"), (Span("a bb", 0),)),))
    with pytest.raises(InputError, match="annotation 'a bb' covers a part of what is replaced"):
        replace_text(record, [(2, 6, "d")])
    with pytest.raises(InputError, match="annotation 'a bb' covers more than a part that is moved"):
        reorder_text(record, [range(0, 1), range(2, 4)], [1, 0])


def test_parts_may_have_new_words_in_their_new_place():
    cause = (Span("A. ice"), Span("fire"))
    record = Record("A. ice B. fire ", "A", (Annotation(Span("A"), cause),))
    moved = reorder_text(record, [range(0, 6), range(7, 14)], [1, 0], ["A. fire", "B. ice"])
    assert moved.input == "A. fire B. ice "
    assert moved.important[0].causes == (Span("B. ice"), Span("fire"))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(0, 99))
def test_an_order_is_another_one(count, seed):
    order = draw_order(count, np.random.default_rng(seed))
    assert sorted(order) == list(range(count))
    assert (order != list(range(count))) == (count > 1)


def test_the_word_after():
    assert [word_after("a; bc", stop) for stop in (0, 1, 2, 5)] == [
        range(0, 1),
        range(1, 2),
        range(3, 5),
        None,
    ]
