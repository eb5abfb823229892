"""Annotations by regular expressions, templates and equations."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.annotation.equations import annotate_equation, equations_of
from cat_jax.annotation.patterns import annotate_patterns, template_pattern
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

RECORD = Record("Smoking: 8, Shoes: 8, Weight: 3. Risk: ", "High")
HIGH = Span("High", 39)


def test_groups_become_causes_of_the_answer_at_their_offsets():
    found = annotate_patterns(
        RECORD, [r"Smoking: (?P<cause>\d+).*Weight: (?P<cause_w>\d+)", r"Smoking: (?P<cause>\d+)"]
    )
    assert found.important == (Annotation(HIGH, (Span("8", 9), Span("3", 30))),)


def test_an_effect_of_its_own_and_all_matches():
    record = Record("3 pens make 3. 4 pens make 4. All: ", "7")
    found = annotate_patterns(record, [r"(?P<cause>\d) pens make (?P<effect>\d)"])
    assert found.important == (
        Annotation(Span("3", 12), (Span("3", 0),)),
        Annotation(Span("4", 27), (Span("4", 15),)),
    )


def test_a_cause_behind_its_effect_is_none():
    found = annotate_patterns(Record("b 1 a 2: ", "x"), [r"(?P<effect>\d) a (?P<cause>\d)"])
    assert found.important == ()


def test_templates():
    record = Record("Tom has 3 red\tapples and 2 pears. How many? ", "5")
    pattern = template_pattern("{name} has {cause} apples and {cause} pears")
    (note,) = annotate_patterns(record, [pattern]).important
    assert [x.text for x in note.causes] == ["3 red", "2"]
    (note,) = annotate_patterns(record, [template_pattern("and {cause}")]).important
    assert [x.text for x in note.causes] == ["2"]
    assert annotate_patterns(record, [template_pattern("Ann has {cause} apples")]).important == ()


@given(st.text("ab.*+?()[]\\", min_size=1, max_size=6), st.integers(0, 999))
def test_templates_mean_their_text(text, number):
    pattern = template_pattern(f"{text}{{cause}};")
    (note,) = annotate_patterns(Record(f"{text}{number}; ", "x"), [pattern]).important
    assert note.causes == (Span(str(number), len(text)),)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: annotate_patterns(RECORD, ["(("]), "is no regular expression"),
        (lambda: annotate_patterns(RECORD, [r"(?P<other>\d)"]), "has no group named 'cause'"),
        (lambda: template_pattern("{name} has 3"), "has no field {cause}"),
        (lambda: annotate_equation(RECORD, "eight - two"), "is no equation"),
        (lambda: annotate_equation(RECORD, "1 = 2 = 3"), "is no equation"),
    ],
)
def test_bad_patterns(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert says in str(error.value)


APPLES = Record("Tom has 8 apples, 41 pens and 1,000 nuts, and eats 2.0. Apples? ", "6")


@pytest.mark.parametrize("equation", ["( 8.0 - 2.0 )", "X=8.0-2.0", "(8-2) = x", "8 - 2 * 1"])
def test_an_equation_says_which_numbers_are_used(equation):
    (note,) = annotate_equation(APPLES, equation).important
    assert note.effect == Span("6", len(APPLES.input))
    assert [x.text for x in note.causes] == ["8", "2.0"]
    assert all(APPLES.input.startswith(x.text, x.start) for x in note.causes)


def test_numbers_by_their_place():
    record = Record("Tom has 8 apples, 8 pens and 2 nuts. ", "6")
    (note,) = annotate_equation(record, "x = N_01 - N_02").important
    assert note.causes == (Span("8", 18), Span("2", 29))
    (note,) = annotate_equation(record, "(N_00 * 2.0)").important
    assert [x.start for x in note.causes] == [8, 29]
    with pytest.raises(InputError, match="names N_03, but the prompt has 3 numbers"):
        annotate_equation(record, "N_00 + N_03")


def test_numbers_that_stand_nowhere_are_left_out():
    assert annotate_equation(APPLES, "7 + 5").important == ()
    (note,) = annotate_equation(APPLES, "1000 * 100").important
    assert [x.text for x in note.causes] == ["1,000"]


@given(st.integers(0, 99), st.integers(1, 99), st.sampled_from("+-*/"))
def test_equations_that_give_the_answer(a, b, sign):
    value = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b)}[sign]
    if a == b or value.denominator != 1 or value < 0:
        return
    found = equations_of(Record(f"{a} or {b}: ", str(value)))
    assert f"{a} {sign} {b}" in found or (sign in "+*" and f"{b} {sign} {a}" in found)
    for equation in found:
        left, operation, right = equation.split()
        x, y = Fraction(left), Fraction(right)
        results = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}
        assert results[operation] == value


def test_they_are_public():
    assert cat.annotation.annotate_patterns is annotate_patterns
    assert equations_of(Record("a: ", "b")) == []
