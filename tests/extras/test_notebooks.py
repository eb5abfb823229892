"""The notebooks run on a toy model, hold no outputs, and their rendered pages are of them."""

import json
import os
import re

import pytest

pytest.importorskip("nbclient", reason="pip install 'cat-jax[notebook]'")

import cat_jax as cat
from cat_jax.errors import InputError
from cat_jax.models import save_pretrained
from cat_jax.testing import toy_model
from experiments import render_notebooks
from experiments.render_notebooks import (
    NOTEBOOKS,
    ROOT,
    execute,
    joined,
    page_links,
    with_values,
    write_page,
)

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
SMALL = {"RECORDS": 4, "STEPS": 2, "BATCH": 2, "TEST_RECORDS": 12, "NEEDLES": 3, "SENTENCES": 2}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "toy"
    model = toy_model()
    save_pretrained(folder, model.model.config, model.params, model.tokenizer)
    return str(folder)


@pytest.fixture
def importable(monkeypatch):
    """The kernel imports this checkout, and runs on the CPU without a network."""
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), before])))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_there_are_four():
    assert NAMES == ["annotate", "attention_maps", "mechanisms", "train_and_look"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, toy, importable, tmp_path):
    given = SMALL | {"MODEL": toy, "TOKENIZER": toy}
    if name in ("mechanisms", "train_and_look"):
        given["RECORDS"] = 300
    notebook = execute(name, given)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [x for x in outputs if x.output_type == "error"]
    assert any(x.get("name") == "stderr" and "%|" in x.text for x in outputs)  # the bars
    write_page(tmp_path, name, notebook)
    page = (tmp_path / f"{name}.md").read_text()
    figures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert sorted(figures) == sorted(path.name for path in tmp_path.glob("*.png"))
    expected = {"annotate": 0, "attention_maps": 5, "mechanisms": 5, "train_and_look": 1}
    assert len(figures) == expected[name]
    assert all((tmp_path / x).read_bytes().startswith(b"\x89PNG") for x in figures)
    said = "".join(x.text for x in outputs if x.get("name") == "stdout")
    expected = {
        "annotate": "'30 swans' does not stand in the text",
        "attention_maps": "after, without attention to {'no word': ",
        "mechanisms": "retrieval heads: ",
        "train_and_look": "guided\n",
    }
    assert expected[name] in said


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_outputs(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    tagged = [cell for cell in notebook["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    assert len(tagged) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_rendered_page_is_of_the_notebook(name):
    """Same texts and code in the same order."""
    page = (ROOT / f"docs/notebooks/{name}.md").read_text()
    at = 0
    for cell in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found = page_links(source)
        else:
            found = f"```python\n{source}\n```"
        assert found in page[at:], f"python -m experiments.render_notebooks {name}"
        at = page.index(found, at) + len(found)
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (ROOT / "docs/notebooks" / figure).stat().st_size < 300_000


def test_values_take_the_place_of_those_of_the_cell():
    source = 'MODEL = "a"  # or b\nSTEPS = 3'
    assert with_values(source, {"MODEL": "c\\1", "OTHER": 1}) == "MODEL = 'c\\\\1'\nSTEPS = 3"


def test_links_of_a_page_are_those_of_its_folder():
    text = "[a](../docs/a.md#b), [b](train_and_look.ipynb), [c](https://x.org/c.ipynb)"
    expected = "[a](../a.md#b), [b](train_and_look.md), [c](https://x.org/c.ipynb)"
    assert page_links(text) == expected


def test_printed_lines_are_joined_and_bars_left_out():
    class Output(dict):
        __getattr__ = dict.__getitem__
        __setattr__ = dict.__setitem__

    def stream(name, text):
        return Output(output_type="stream", name=name, text=text)

    found = joined([stream("stdout", "a\n"), stream("stderr", "50%"), stream("stdout", "b\n")])
    assert [x.text for x in found] == ["a\nb\n"]


def test_a_cell_that_fails_and_a_name_that_is_unknown_are_told(importable, monkeypatch, tmp_path):
    (tmp_path / "bad.ipynb").write_text(
        json.dumps(
            {
                "cells": [
                    {
                        "cell_type": "code", "id": "a", "metadata": {}, "execution_count": None,
                        "outputs": [], "source": ["raise ValueError('no')"],
                    }
                ],
                "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
            }
        )
    )  # fmt: skip
    monkeypatch.setattr(render_notebooks, "NOTEBOOKS", tmp_path)
    with pytest.raises(InputError, match="notebook 'bad' fails: ValueError: no"):
        execute("bad", {})
    monkeypatch.setattr("sys.argv", ["", "none"])
    with pytest.raises(InputError, match="no notebook 'none'; there are bad"):
        render_notebooks.main()


def test_notebooks_call_what_is_public():
    for name in NAMES:
        text = (NOTEBOOKS / f"{name}.ipynb").read_text()
        for found in re.findall(r"\bcat\.(\w+)", text):
            assert hasattr(cat, found), f"{name}: cat.{found}"
