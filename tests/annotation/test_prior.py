"""Priors are checked when they are read, and drawn as they are."""

import copy
import re
from html.parser import HTMLParser

import pytest
import yaml

from cat_jax.annotation import PRIORS, read_prior
from cat_jax.errors import InputError

PRIOR = {
    "task": "Copy a number & double it.",
    "kinds": {"number": "the number", "step": "half way <b>", "answer": "the double"},
    "edges": ["number -> step", "step -> step", "step -> answer"],
    "answer": "answer",
    "examples": [
        {
            "input": "x is 3 <i>, y is 3. Answer: ",
            "target": "3 and 3 is 6",
            "annotations": [
                {
                    "effect": {"text": "3 and 3", "kind": "step"},
                    "causes": [{"text": "3", "kind": "number", "occurrence": 1}],
                },
                {
                    "effect": {"text": "6", "kind": "answer"},
                    "causes": [{"text": "3 and 3", "kind": "step"}],
                },
            ],
        }
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(change=lambda prior: None):
        prior = copy.deepcopy(PRIOR)
        change(prior)
        path = tmp_path / "prior.yaml"
        path.write_text(yaml.safe_dump(prior))
        return path

    return write


def test_a_prior_is_what_its_file_says(write):
    prior = read_prior(write())
    assert prior.task == PRIOR["task"]
    assert dict(prior.kinds) == PRIOR["kinds"]
    assert prior.edges == (("number", "step"), ("step", "step"), ("step", "answer"))
    (record,) = prior.records
    step, answer = record.important
    assert record.text[step.effect.start :].startswith("3 and 3 is")
    assert [cause.start for cause in step.causes] == [record.text.index("3")]
    assert answer.effect.start == len(record.text) - 1
    assert prior.sha256 != read_prior(write(lambda p: p.update(task="other"))).sha256


def test_those_that_come_along_are_valid():
    assert PRIORS == ("choice", "math", "regression", "risk", "steps")
    for name in PRIORS:
        prior = read_prior(name)
        assert all(record.important for record in prior.records)
        spans = [x for r in prior.records for a in r.important for x in (a.effect, *a.causes)]
        assert all(span.start is not None for span in spans)


def example(change):
    return lambda prior: change(prior["examples"][0])


def note(change):
    return lambda prior: change(prior["examples"][0]["annotations"][0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("task"), "must have the fields task, kinds, edges, answer, examples"),
        (lambda p: p.update(more=1), "must have the fields"),
        (lambda p: p.update(task=" "), "field 'task'"),
        (lambda p: p["kinds"].update(step=""), "field 'kinds': give each kind a sentence"),
        (lambda p: p.update(kinds=["number"]), "field 'kinds'"),
        (lambda p: p.update(edges=[]), "field 'edges': give a list"),
        (lambda p: p["edges"].append("number"), "'number' must be of the form"),
        (lambda p: p["edges"].append("number -> nothing"), "no kind is named 'nothing'"),
        (lambda p: p["edges"].append("answer -> number"), "is a circle; nothing depends on itself"),
        (lambda p: p["kinds"].update(word="unused"), "the kind 'word' has no edge"),
        (
            lambda p: p.update(answer="number"),
            "field 'answer': must be a kind that oth",
        ),
        (lambda p: p.update(examples=[]), "field 'examples': give one to 5"),
        (lambda p: p.update(examples=p["examples"] * 6), "field 'examples': give one to 5"),
        (example(lambda e: e.pop("target")), "example 1: must have the fields"),
        (example(lambda e: e.update(target=6)), "put numbers in quotes"),
        (example(lambda e: e.update(annotations=[])), "example 1, field 'annotations'"),
        (note(lambda n: n.update(causes=[])), "example 1, field 'annotations.0.causes'"),
        (note(lambda n: n.update(why="x")), "example 1, field 'annotations.0.why'"),
        (note(lambda n: n["causes"][0].update(occurrence=0)), "causes.0.occurrence"),
        (note(lambda n: n["causes"][0].update(text="7")), "'7' does not stand in the text"),
        (note(lambda n: n["causes"][0].pop("occurrence")), "stands 4 times in the text"),
        (note(lambda n: n["causes"][0].update(occurrence=5)), "has no occurrence 5"),
        (note(lambda n: n["causes"][0].update(kind="answer")), "answer -> step is no edge"),
        (note(lambda n: n["causes"][0].update(kind="thing")), "there is no kind 'thing'"),
        (note(lambda n: n["causes"][0].update(occurrence=3)), "does not stand before its effect"),
        (example(lambda e: e["annotations"].pop()), "no effect is the answer"),
    ],
)
def test_what_is_no_prior_is_refused_by_field(write, change, says):
    path = write(change)
    with pytest.raises(InputError, match=re.escape(says)) as error:
        read_prior(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "\0", "a: !!python/object:os.system x"])
def test_files_that_are_no_yaml_are_refused(tmp_path, content):
    path = tmp_path / "prior.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_prior(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        read_prior(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"maths cannot be read.*did you mean math"):
        read_prior("maths")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_shows_graph_and_examples_and_loads_nothing(write, tmp_path):
    prior = read_prior(write())
    prior.save_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert prior._repr_html_() in text
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "b", "i"} == set()
    assert "default-src 'none'" in text
    shown = "".join(page.words)
    for words in (prior.task, *prior.kinds.values(), prior.records[0].text):
        assert words in shown
    assert len([tag for tag, _ in page.tags if tag == "rect"]) == 3
    arrows = [attrs for tag, attrs in page.tags if tag == "path" and "marker-end" in attrs]
    assert len(arrows) == len(prior.edges)
    # Causes left of their effects.
    places = {a["x"]: a for tag, a in page.tags if tag == "rect"}
    assert len(places) == 3


def test_the_graph_is_that_of_networkx(write):
    graph = read_prior(write()).graph
    assert sorted(graph.edges) == [("number", "step"), ("step", "answer"), ("step", "step")]
