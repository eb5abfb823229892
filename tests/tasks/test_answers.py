from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.tasks.answers import (
    format_number,
    numbers_agree,
    parse_choice,
    parse_number,
    parse_yes_no,
)

NUMBERS = {
    "84": "84",
    "84.0": "84",
    " 84\n": "84",
    "84.": "84",
    "84.50": "84.5",
    "Answer: 84.0": "84",
    "answer: 7": "7",
    "The answer is 8.": "8",
    "The answer is $5.": "5",
    "The final answer is: 12": "12",
    "#### 5": "5",
    "####5": "5",
    "#### 1,234": "1234",
    "#### 1,234,567.5": "1234567.5",
    "x = 3\n#### 7 apples": "7",
    "He has 3 + 4 = <<3+4=7>>7 apples.\n#### 7": "7",
    "12 apples": "12",
    "15 (balls)": "15",
    "$1,234.50": "1234.5",
    "€ 3": "3",
    "-5": "-5",
    "−5": "-5",
    "-$3": "-3",
    "Answer: -0.25": "-0.25",
    ".5": "0.5",
    "50%": "50",
    "3/4": "0.75",
    "1 1/2": "1.5",
    "1/3 of it": "0.3333333333",
    "5 + 3 = 8": "8",
    "2 x 3 = 6 cm": "6",
    "He has 3 and buys 4, so 7": "7",
    "First 10, then 20, in the end 30 dollars.": "30",
    "Answer: 6 because 2 x 3 is 6": "6",
    "The answer is 4. Answer: 5": "5",
    "#### 9\nThe answer is clear": "9",
    "It is 007": "7",
    "1000000": "1000000",
    "no idea": "no idea",
    "": "",
    "2:3": "2:3",
    "Monday": "Monday",
}
CHOICES = {"A": "hot air", "B": "cold water", "C": "ice", "D": "an ice cube"}
CHOSEN = {
    "B": "B",
    " b ": "B",
    "(B)": "B",
    "B.": "B",
    "B)": "B",
    "B:": "B",
    "B. cold water": "B",
    "(B) cold water": "B",
    "B\ncold water": "B",
    "Answer: B": "B",
    "answer: b.": "B",
    "The answer is B.": "B",
    "The answer is (B).": "B",
    "The correct answer is: B": "B",
    "The answer is B because water is cold": "cold: none",
    "cold water": "B",
    "Cold water.": "B",
    "The answer is cold water.": "B",
    "It is cold water": "B",
    "because of hot air!": "A",
    "ice": "C",
    "an ice cube": "D",
    "Ice.": "C",
    "AN ICE CUBE": "D",
    "1": "A",
    "2.": "B",
    "4": "D",
    "Answer: 3": "C",
    "5": "5",
    "0": "0",
    "E": "E",
    "steam": "steam",
    "": "",
    "hot air or cold water": "hot air or cold water",
    "A. hot air": "A",
    "a": "A",
    "D": "D",
    "C. ice": "C",
}
YES_NO = {
    "yes": "yes",
    "Yes.": "yes",
    "YES": "yes",
    "no": "no",
    "No, because": "no",
    "Answer: no": "no",
    "The answer is yes.": "yes",
    "maybe": "maybe",
    "I do not know": "I do not know",
    "nothing": "nothing",
    "yesterday": "yesterday",
    "Well, no.": "no",
}


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers(text):
    assert parse_number(text) == NUMBERS[text]


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1_000))
def test_numbers_come_back(value):
    text = format_number(value)
    assert parse_number(text) == text
    assert abs(Fraction(text) - value) < Fraction(1, 10**9)
    for form in (f"Answer: {text}", f"#### {text}", f"The answer is {text}.", f"{text} apples"):
        assert parse_number(form) == text


@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_commas_and_decimals_do_not_matter(number, zeros):
    text = f"{number:,}" + ("." + "0" * zeros if zeros else "")
    assert parse_number(text) == str(number)


@given(st.integers(0, 10**6), st.integers(1, 999))
def test_fractions_are_their_value(top, bottom):
    assert numbers_agree(parse_number(f"{top}/{bottom}"), str(top / bottom))


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        ("84", "84.0", True),
        ("0.3333", "0.33333333", True),
        ("0.333", "0.3333333", False),
        ("1000000", "1000001", True),
        ("84", "85", False),
        ("none", "85", False),
        ("none", "none", False),
    ],
)
def test_agreement(answer, target, same):
    assert numbers_agree(answer, target) == same


@pytest.mark.parametrize("text", [text for text in CHOSEN if CHOSEN[text] != "cold: none"])
def test_choices(text):
    assert parse_choice(text, CHOICES) == CHOSEN[text]


def test_a_label_with_words_behind_it_is_no_bare_label():
    text = "The answer is B because water is cold"
    assert parse_choice(text, CHOICES) == text
    assert parse_choice("A hot day", CHOICES) == "A hot day"


def test_labels_that_are_numbers_are_no_places():
    choices = {"1": "ice", "2": "steam", "3": "4"}
    assert parse_choice("2", choices) == "2"
    assert parse_choice("4", choices) == "3"


@given(
    st.lists(st.text("abcdefgh ", min_size=1).filter(str.strip), min_size=2, max_size=5),
    st.data(),
)
def test_choices_come_back(texts, data):
    words = [f"x{number}{' '.join(text.split())}" for number, text in enumerate(texts)]
    choices = dict(zip("ABCDE", words, strict=False))
    label = data.draw(st.sampled_from(list(choices)))
    for form in ("{0}", "({0})", "{0}.", "{0}. {1}", "Answer: {0}", "{1}", "Answer: {1}."):
        assert parse_choice(form.format(label, choices[label]), choices) == label


@pytest.mark.parametrize("text", YES_NO)
def test_yes_no(text):
    assert parse_yes_no(text) == YES_NO[text]
