"""Annotated words are found whole, in every script, at the offsets of the text as given."""

import re
import unicodedata
from itertools import combinations, product
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.data.matching import find_span
from cat_jax.data.records import Span


def starts(words, text):
    return [place.start for place in find_span(text, Span(words))]


def found(words, text):
    return [text[place.start : place.stop] for place in find_span(text, Span(words))]


@pytest.mark.parametrize(
    ("words", "text", "places"),
    [
        ("5", "5 and 15, 51, 5.2, 2.5, 1,500, 5,000, -5, −5, .5, 5th, 5", [0, 55]),
        ("5", "5% $5 5; (5) 16-5=5. 9 -5", [0, 4, 6, 10, 16, 18]),
        ("5.2", "15.2 5.21 5.2.", [10]),
        ("13.4%", "113.4% 13.4%;", [7]),
        ("-5", "5 -5 -51", [2]),
        ("$5", "$51 $5", [4]),
        ("5 of 6", "5 of 61; 5 of 6", [9]),
        ("High Risk", "High Risks, High Risk", [12]),
        ("mar", "marbles, Omar, mar's", [15]),
        ("Ça", "Ça, ça", [0]),
        ("ça", "Ça", [0]),
        ("how many", "How many", [0]),
        ("Answer", "answer Answer", [7]),
        ("a a", "a a a", [0, 2]),
        (" Answer ", "Answer: ", [0]),
        ("a.c", "abc", []),
        ("8", "four", []),
        (" ", "a b", []),
        ("", "a b", []),
    ],
)
def test_whole_words_and_numbers(words, text, places):
    assert starts(words, text) == places


def test_the_examples_of_the_documentation():
    document = Path(__file__).parents[2] / "docs" / "finetuning.md"
    row = r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` at (\d+) \|"
    examples = re.findall(row, document.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(examples) == 10
    for words, text, piece, place in examples:
        assert (found(words, text), starts(words, text)) == ([piece], [int(place)])


@pytest.mark.parametrize(
    ("number", "text", "places"),
    [
        (".5", "2.5 3*.5=1.5 -.5 .5", [6, 17]),
        ("5.", "5.2 5.", [4]),
        ("5", "16-5 x-5 )-5 (-5) =-5 --5 −5", [3, 7, 11]),
        ("-5", "16-5 x-5 )-5 (-5) =-5", [14, 19]),
        ("1,000", "1,000 21,000 1,0001 1,000,000 1,000.", [0, 30]),
        ("1", "1,000 1, 000 1.", [6, 13]),
        ("000", "1,000 1, 000", [9]),
        ("$1", "$1,000 $1", [7]),
        ("05", "2024-05-06", [5]),
        ("1.2", "1.2.3 v1.2 1.2", [11]),
        ("٢", "٢٫٥ ١٬٢ ٢", [8]),
        ("๕", "ราคา๕๐บาท ราคา๕บาท", [14]),
        ("5", "第5页15页 5kg 温度-5度", [1]),
    ],
)
def test_numbers_are_whole_with_their_sign_point_and_commas(number, text, places):
    assert starts(number, text) == places


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("没有到", "我的订单没有到。分类：丢失"),
        ("注文", "私の注文が届いていません"),
        ("コーヒー", "アイスコーヒーを二つ"),
        ("หาย", "พัสดุหายแล้ว"),
        ("ບໍ່ມາ", "ພັດສະດຸບໍ່ມາ"),
        ("មិនទាន់", "ការបញ្ជាទិញមិនទាន់មកដល់"),
        ("မရောက်", "ပစ္စည်းမရောက်သေးပါ"),
        ("ཡིག", "བོད་ཡིགགི"),
        ("iPhone", "我的iPhone手机"),
        ("PIN", "รหัสPINผิด"),
    ],
)
def test_scripts_without_spaces_have_no_word_borders(words, text):
    assert starts(words, text) == [text.index(words)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("क", "कि"),
        ("कि", "किताब"),
        ("ก", "กิน"),
        ("e", "e\u0301"),
        ("하", "한"),
        ("カ", "ガ"),
        ("が", "か"),
        ("👩", "👩‍👩‍👧"),
        ("🇪🇫", "🇩🇪🇫🇷"),
        ("주문", "주문이"),
        ("می", "می\u200cخواهم"),
        ("خواهم", "می\u200cخواهم"),
        ("dampf", "Donau\u00addampf"),
        ("s", "ß"),
        ("phone", "iphone"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_no_part_of_a_letter_or_word_is_a_word(words, text, form):
    text = normalize(form, text)
    assert starts(words, text) == []
    assert starts(words, f"{text} {words}") == [len(text) + 1]


@pytest.mark.parametrize(
    ("words", "text"),
    [("STRASSE", "Straße"), ("ὈΔΥΣΣΕΎΣ", "Ὀδυσσεύς"), ("ÉTÉ", "été"), ("Ấp", "ấP")],
)
@pytest.mark.parametrize("forms", [*product(["NFC", "NFD"], repeat=2)])
def test_case_is_ignored_where_nothing_else_matches(words, text, forms):
    words, text = map(normalize, forms, (words, text))
    assert found(words, f"({text})") == [text]
    assert found(words, f"({text}) {words}") == [words]


def test_spaces_inside_and_quotes_count_as_they_stand():
    assert starts("High Risk", "High  Risk High\nRisk High\u00a0Risk") == []
    assert starts("it's", "it’s it's") == [5]
    assert starts("Low", "“Low” 'Low' \"Low\" 「Low」") == [1, 7, 13, 19]


def test_an_effect_that_ends_the_text_is_the_answer():
    assert find_span("né; né ", Span("né"), is_effect=True) == [range(4, 6)]
    decomposed = normalize("NFD", "né; né ")
    assert find_span(decomposed, Span("né"), is_effect=True) == [range(5, 8)]
    assert len(find_span("né; né;", Span("né"), is_effect=True)) == 2


WHOLE = [
    *("5", "15", "5.2", ".5", "-5", "1,500", "1,500.5", "500", "risk", "risks", "a5", "5th"),
    *("é", "e", "né", "ne", "한", "하", "क", "कि", "क़", "ạ̈", "ạ", "می\u200cشود", "می"),
]
BETWEEN = st.sampled_from([" ", ", ", "; ", "\n", " (", ": "])
FORM = st.sampled_from(["NFC", "NFD"])


@given(st.lists(st.tuples(st.sampled_from(WHOLE), FORM, BETWEEN), max_size=9), FORM, st.data())
def test_words_between_separators_are_found_where_they_were_put(parts, form, data):
    words = data.draw(st.sampled_from(WHOLE))
    text, places = "", []
    for part, its_form, separator in parts:
        part = normalize(its_form, part)
        if normalize("NFC", part) == normalize("NFC", words):
            places.append(range(len(text), len(text) + len(part)))
        text += part + separator
    assert find_span(text, Span(normalize(form, words))) == places


@given(st.text("我们没有到订单がのアイー。1"), st.text("我们没有到がのア", min_size=1, max_size=3))
def test_without_spaces_every_place_counts(text, words):
    places = [n for n in range(len(text)) if text.startswith(words, n)]
    assert starts(words, text) == places


UNSPACED = "我们かがカガ"
LETTERS = st.sampled_from([*"aAeE_ (;12", "é", "e\u0301", "É", "ộ", "\u0323", "\u3099", *UNSPACED])
TEXT = st.lists(LETTERS, max_size=9).map("".join)


def is_border(text, place):
    """Tell whether a piece of a text of ``LETTERS`` may begin or end here, by the plain rule."""

    def is_letter(letter):
        return (letter.isalnum() or letter == "_") and letter not in UNSPACED

    if place in (0, len(text)):
        return True
    before = text[:place].rstrip("\u0301\u0323\u3099")
    is_inside = bool(before) and is_letter(before[-1]) and is_letter(text[place])
    return not unicodedata.combining(text[place]) and not is_inside


@given(TEXT, FORM, st.data())
def test_every_whole_piece_that_is_canonically_the_words_is_found(text, form, data):
    start = data.draw(st.integers(0, len(text)))
    words = data.draw(st.just(text[start : start + data.draw(st.integers(1, 4))]) | TEXT).strip()
    pieces = [
        range(*ends) for ends in combinations(range(len(text) + 1), 2)
        if all(is_border(text, end) for end in ends)
    ]  # fmt: skip

    def equal(fold):
        wanted = normalize("NFC", fold(words))
        return [x for x in pieces if normalize("NFC", fold(text[x.start : x.stop])) == wanted]

    expected = (equal(str) or equal(str.casefold)) if words else []
    assert find_span(text, Span(normalize(form, words))) == expected


MIXED = st.sampled_from(
    [*"aEß_ .,-1(٫๕", "é", "ộ", "한", "하", "क", "कि", "क़", "ガ", "กำ", "\u200d"]
)
ANY = st.lists(MIXED, max_size=14).map("".join)


@given(ANY, ANY | MIXED)
def test_the_normal_form_of_text_and_words_does_not_matter(text, words):
    words = words.strip()
    results = {
        tuple(normalize("NFC", piece) for piece in found(normalize(a, words), normalize(b, text)))
        for a, b in product(["NFC", "NFD"], repeat=2)
    }
    assert len(results) == 1
