"""How good the published annotations are, by the rules of this package; figures of the docs."""

import json

import pytest

from cat_jax.annotation import annotate_equation, annotator_agreement
from cat_jax.annotation.agreement import edges_of
from cat_jax.annotation.equations import NUMBER, equations_of
from cat_jax.data.matching import find_span
from cat_jax.data.sources import read_records
from cat_jax.tasks.mawps import MAWPS
from cat_jax.tasks.svamp import SVAMP

NAMES = {
    "MAWPS, GLM": ("MAWPS", {}, 0.882),
    "MAWPS, GPT-4o": ("MAWPS", {"annotator": "gpt4o"}, 0.933),
    "SVAMP": ("SVAMP", {}, 0.916),
}


@pytest.fixture(scope="module")
def published(shared):
    return shared / "data/cat_reference"


def training(published, name, **settings):
    task = {"MAWPS": MAWPS, "SVAMP": SVAMP}[name]
    return task(folder=str(published / name), **settings).records("train")


def valid_share(records):
    """Edges whose words both stand in the text as whole words, a cause before its effect."""
    found = [
        any(
            cause.stop <= effect.start
            for effect in find_span(record.text, note.effect, is_effect=True)
            for cause in find_span(record.text, span)
        )
        for record in records
        for note in record.important
        for span in note.causes
    ]
    return sum(found) / len(found)


@pytest.mark.parametrize("name", NAMES)
def test_edges_that_are_valid(published, name):
    task, settings, share = NAMES[name]
    assert valid_share(training(published, task, **settings)) == pytest.approx(share, abs=5e-4)


def test_edges_of_gsm8k(published):
    records = read_records(published / "GSM8k/gsm8k_val_first400.jsonl")
    assert valid_share(records) == pytest.approx(0.798, abs=5e-4)


@pytest.fixture(scope="module")
def both(published):
    return [training(published, "MAWPS", annotator=name) for name in ("glm", "gpt4o")]


def test_two_assistants_agree_in_part(both):
    assert annotator_agreement(*both) == pytest.approx(0.404, abs=1e-3)


def marked_numbers(record):
    """Numbers of the prompt within causes of the answer."""
    causes = [cause for effect, cause in edges_of(record) if effect[1] > len(record.input)]
    numbers = [number.span() for number in NUMBER.finditer(record.input)]
    return {n for n in numbers if any(a <= n[0] and n[1] <= b for a, b in causes)}


@pytest.mark.parametrize(("annotator", "same", "recall"), [(0, 0.696, 0.829), (1, 0.912, 0.985)])
def test_numbers_that_the_equation_uses(both, annotator, same, recall):
    """Where one equation with two numbers of the text gives the answer: 741 of 1239 problems."""
    rows = []
    for record in both[annotator]:
        equations = equations_of(record)
        if len({frozenset(equation.split()[::2]) for equation in equations}) == 1:
            rows.append((record, annotate_equation(record, equations[0])))
    assert len(rows) == 741
    pairs = [(marked_numbers(a), marked_numbers(b)) for a, b in rows]
    assert sum(a == b for a, b in pairs) / len(rows) == pytest.approx(same, abs=1e-3)
    found = sum(len(a & b) for a, b in pairs) / sum(len(b) for _, b in pairs)
    assert found == pytest.approx(recall, abs=1e-3)


@pytest.fixture(scope="module")
def svamp(published):
    """Published records, and the records that their own equations annotate."""
    lines = (published / "SVAMP/svamp_train.jsonl").read_text().splitlines()
    records = training(published, "SVAMP")
    equations = [json.loads(line)["Equation"] for line in lines]
    return records, [annotate_equation(*x) for x in zip(records, equations, strict=True)]


def test_equations_of_svamp_are_found_in_all_records(svamp):
    assert [bool(record.important) for record in svamp[1]] == [True] * 600


def test_numbers_that_the_equations_of_svamp_use(svamp):
    pairs = [(marked_numbers(a), marked_numbers(b)) for a, b in zip(*svamp, strict=True)]
    pairs = [pair for pair, record in zip(pairs, svamp[0], strict=True) if record.important]
    assert len(pairs) == 597
    assert sum(a == b for a, b in pairs) / len(pairs) == pytest.approx(0.633, abs=1e-3)
    both = sum(len(a & b) for a, b in pairs)
    assert both / sum(len(b) for _, b in pairs) == pytest.approx(0.818, abs=1e-3)
    assert both / sum(len(a) for a, _ in pairs) == pytest.approx(0.930, abs=1e-3)


def test_equations_that_give_the_answer_are_mostly_those_of_svamp(svamp):
    right = []
    for record, own in zip(*svamp, strict=True):
        equations = equations_of(record)
        if len({frozenset(equation.split()[::2]) for equation in equations}) == 1:
            found = annotate_equation(record, equations[0])
            right.append(marked_numbers(found) == marked_numbers(own))
    assert (len(right), sum(right)) == (431, 414)
