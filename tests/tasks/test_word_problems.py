"""Word problems with other operands and other people."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.tasks import asdiv, gsm8k, mawps, svamp
from cat_jax.tasks.operands import redraw_operands
from cat_jax.tasks.people import rename_people

FORMS = {
    "{a} + {b}": lambda a, b, c: a + b,
    "( {a} - {b} )": lambda a, b, c: a - b,
    "X = {a}*{b}": lambda a, b, c: a * b,
    "{a}/{b}=8": lambda a, b, c: a / b,
    "( ( {a} + {b} ) / {c} )": lambda a, b, c: (a + b) / c,
    "{a} * ( {b} - {c} ) * 100": lambda a, b, c: a * (b - c) * 100,
}
SEEDS = st.integers(0, 2**32 - 1)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def numbers(text):
    return [Fraction(x.replace(",", "")) for x in NUMBER.findall(text)]


def written(value):
    return str(value) if value.denominator == 1 else f"{float(value)}"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(FORMS)),
    st.lists(st.integers(2, 60), min_size=4, max_size=4, unique=True),
    SEEDS,
)
def test_the_equation_gives_the_new_answer(form, values, seed):
    compute, (a, b, c, other) = FORMS[form], map(Fraction, values)
    answer = compute(a, b, c)
    assume(answer > 0)
    assume((answer * 1000).denominator == 1)
    assume(form != "{a}/{b}=8" or answer == 8)
    text = f"Of {a} nuts and {other} figs, {b} are from {c} trees. How many? Answer: "
    effect = Span(written(answer), len(text))
    notes = (
        Annotation(effect, (Span(f"{a} nuts"), Span(f"{b}"), Span("trees"))),
        Annotation(Span("How many"), (Span(f"{other} figs"),)),
    )
    record = Record(text, f"{written(answer)} (pieces)", notes)
    equation = form.format(a=f"{a}.0", b=b, c=c)
    new = redraw_operands(record, equation, np.random.default_rng(seed))
    assert redraw_operands(record, equation, np.random.default_rng(seed)) == new
    new_a, kept, new_b, new_c = numbers(new.input)
    assert kept == other
    if "c" not in form:
        assert new_c == c
    assert NUMBER.sub("#", new.text) == NUMBER.sub("#", record.text)
    (found,) = numbers(new.target)
    assert found == pytest.approx(compute(new_a, new_b, new_c), rel=1e-9)
    assert found > 0
    assert answer.denominator % found.denominator == 0
    for old, value in zip((a, b, c), (new_a, new_b, new_c), strict=True):
        assert max(2, old / 2) <= value <= 2 * old
    assert [[x.text for x in note.causes] for note in new.important] == [
        [f"{new_a} nuts", f"{new_b}", "trees"],
        [f"{other} figs"],
    ]


def test_most_problems_have_a_draw():
    rng, edited = np.random.default_rng(0), 0
    for _ in range(30):
        a, b = rng.integers(2, 30, size=2).tolist()
        record = Record(f"{a * b} figs for {b} people? Answer: ", f"{a}.0")
        edited += redraw_operands(record, f"{a * b}.0 / {b}.0", rng) != record
    assert edited >= 28


@pytest.mark.parametrize(
    ("prompt", "target", "equation"),
    [
        ("6 and nine?", "16", "6+9=15"),  # not the answer
        ("six and nine?", "15", "6+9=15"),  # no operand in digits
        ("6 and 6 and 9?", "15", "6+9-0"),  # which of them?
        ("3/4 of 1?", "0.75", "3/4"),  # a fraction is one number
        ("26 by 4?", "6", "26/4=6 r2"),
        ("32 and 24?", "8", "GCD(32,24)=8"),
        ("2 to 3?", "8", "2**3"),
        ("5 over 0?", "5", "5/0"),
        ("5 and 3?", "2 of 5", "5-3"),
        ("5 and 3?", "two", "5-3"),
        ("-5 and 8?", "3", "-5+8"),
        ("7?", "7", "x = 7"),
        ("5 and 3?", "2", "(5-3"),
    ],
)
def test_problems_that_cannot_be_redrawn(prompt, target, equation):
    record = Record(f"{prompt} Answer: ", target)
    numbers_in_words = prompt == "6 and 6 and 9?"
    new = redraw_operands(record, equation, np.random.default_rng(0))
    assert (new is record) != numbers_in_words
    if numbers_in_words:  # of two alike neither, the third may
        assert re.fullmatch(r"6 and 6 and \d+\? Answer: ", new.input)


def test_numbers_are_written_as_before():
    record = Record("$1,200 less 2.50? Answer: ", "1,197.50")
    for seed in range(20):
        new = redraw_operands(record, "1200 - 2.5", np.random.default_rng(seed))
        assert re.fullmatch(r"\$(\d|\d,\d{3}|\d{3}) less \d\.\d\d\? Answer: ", new.input)
        assert re.fullmatch(r"(\d,)?\d{3}\.\d\d", new.target)


NAMES = {"Ruth": "she", "Peter": "he", "Sam": "they", "danny": "", "Grace": "", "Marin": ""}


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=6), SEEDS)
def test_people_have_other_names(named, seed):
    text = " ".join(f"{name} has {n} figs." for n, name in enumerate(named))
    note = Annotation(Span("2"), (Span(f"{named[0]} has"),))
    record = Record(f"{text} Answer: ", f"{named[0]}'s are 2", (note,))
    new = rename_people(record, np.random.default_rng(seed))
    assert rename_people(record, np.random.default_rng(seed)) == new
    renamed = dict(zip(record.text.split(), new.text.split(), strict=True))
    changed = {old: other for old, other in renamed.items() if old != other}
    # A name in small letters is one where it stands in capitals too.
    assert {x.removesuffix("'s") for x in changed} == {"Ruth", "Peter", "Sam"} & set(named)
    assert len(set(changed.values())) == len(changed)
    assert len(new.important) == 1
    first = new.text.split()[0]
    assert new.important[0].causes[0].text == f"{first} has"
    assert new.target == f"{first}'s are 2"


def test_names_in_small_letters_follow():
    record = Record("Danny has 2. How many has danny? Answer: ", "2")
    new = rename_people(record, np.random.default_rng(0))
    (name,) = re.findall(r"^(\w+) has 2\.", new.input)
    assert name != "Danny"
    assert new.input == f"{name} has 2. How many has {name.lower()}? Answer: "


def test_a_record_without_known_names_stays():
    record = Record("How many has the baker? Answer: ", "2")
    assert rename_people(record, np.random.default_rng(0)) is record


@pytest.fixture
def published(shared):
    return shared / "data/cat_reference"


def test_published_problems_with_equations(published):
    """The new answer is that of the row's equation, evaluated by Python."""
    task = svamp(folder=str(published / "SVAMP"))
    rng, edited = np.random.default_rng(0), 0
    for record, row in task.read_rows("iid"):
        new = task.interventions["causal"](record, rng)
        edited += new != record
        before, after = numbers(record.input), numbers(new.input)
        changes = {a: b for a, b in zip(before, after, strict=True) if a != b}
        formula = NUMBER.sub(
            lambda x, new=changes: f"Fraction('{new.get(Fraction(x[0]), x[0])}')", row["Equation"]
        )
        answer = eval(formula, {"Fraction": Fraction})
        assert Fraction(new.target) == answer
        assert task.is_right(task.parse_answer(str(float(answer))), new.target)
        assert NUMBER.sub("#", new.text) == NUMBER.sub("#", record.text)
        assert (answer.denominator == 1) >= (Fraction(record.target).denominator == 1)
    assert edited == 200


def test_published_problems_with_answers_that_have_units(published):
    """Other splits, which would have to be fetched, are not read for these."""
    task = asdiv(ood=str(published / "ASDiv/sample.jsonl"))
    rng, edited = np.random.default_rng(0), 0
    for record in task.records("ood"):
        new = task.interventions["causal"](record, rng)
        edited += new != record
        assert NUMBER.sub("#", new.text) == NUMBER.sub("#", record.text)
    assert edited == 20


@pytest.mark.parametrize(
    ("task", "file", "edited"),
    [
        (mawps, "MAWPS/mawps_test.jsonl", 274),
        (svamp, "SVAMP/svamp_test.jsonl", 119),
        (asdiv, "ASDiv/sample.jsonl", 16),
        (gsm8k, "GSM8k/gsm8k_val_first400.jsonl", 200),
    ],
)
def test_published_problems_with_other_people(published, task, file, edited):
    from cat_jax.tasks.people import _KNOWN

    records = task(ood=str(published / file)).records("ood")
    rng, renamed = np.random.default_rng(0), 0
    for record in records:
        new = task().interventions["rename"](record, rng)
        renamed += new != record
        assert (new == record) == (_KNOWN.search(record.text) is None)
        before, after = (re.findall(r"\w+|\W", x.text) for x in (record, new))
        pairs = {(a, b) for a, b in zip(before, after, strict=True) if a != b}
        assert all(_KNOWN.fullmatch(b.capitalize()) for _, b in pairs)
        assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
        assert task().parse_answer(new.target) == task().parse_answer(record.target)
        assert len(new.important) >= len(record.important)
    assert renamed == edited, len(records)


def test_which_tasks_know_equations(tmp_path):
    folder = str(tmp_path)
    assert list(svamp(folder=folder).interventions) == ["causal", "rename"]
    assert list(asdiv().interventions) == ["causal", "rename"]
    assert list(mawps().interventions) == ["causal", "rename"]
    assert list(mawps(folder=folder).interventions) == ["rename"]
    assert list(gsm8k().interventions) == ["rename"]


def test_equations_of_the_originals(tmp_path):
    import datasets

    row = {"question": "8 less 3?", "result": "5", "expression": "8-3"}
    bare = {"question": "9 less 3?", "result": "6", "expression": None}
    rows = datasets.Dataset.from_list([row, bare])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "originals"))
    task = mawps(source=str(tmp_path / "originals"))
    known, unknown = task.records("iid")
    new = task.interventions["causal"](known, np.random.default_rng(0))
    a, b = numbers(new.input)
    assert numbers(new.target) == [a - b] != [Fraction(5)]
    other = Record("7 less 3? Answer: ", "4")
    for record in (unknown, other):
        assert task.interventions["causal"](record, np.random.default_rng(0)) is record
