"""The benchmark of pages of attention maps, on a short text and a model with random weights."""

import json
import shutil
import sys

import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.models import save_pretrained
from cat_jax.tasks import TASKS
from cat_jax.testing import toy_model
from experiments import benchmark_attention_page
from experiments.benchmark_attention_page import code_errors, read_text
from experiments.benchmarking.browser import open_browser


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "toy"
    toy = toy_model(num_layers=3)
    save_pretrained(folder, toy.model.config, toy.params, toy.tokenizer)
    return str(folder)


def test_the_text_has_as_many_tokens_as_were_asked_for(model):
    maps_NHTT, tokens = read_text(model, 37)
    assert maps_NHTT.shape == (3, 2, 37, 37)
    assert len(tokens) == 37
    assert "".join(tokens) == TASKS["stg"].records("train")[0].text[:37]
    np.testing.assert_allclose(maps_NHTT.sum(-1), 1, atol=1e-5)


def test_errors_of_codes():
    """By hand: the nearest of 0, 1/255, ... and of their squares; small values are lost by one."""
    rows = [[1, 0, 0], [0.5, 0.5, 0], [0.999, 0.0009, 0.0001]]
    found = code_errors(np.tile(np.array(rows, np.float32), (1, 2, 1, 1)))
    assert found["even_lost"] == pytest.approx(0.001 / 3, rel=1e-3)
    assert found["page_lost"] == 0
    even = [0, 0.5 / 255, 0.5 / 255, 0.001, 0.0009, 0.0001]
    assert found["even_error"] == pytest.approx(sum(even) / 6, rel=1e-3)
    half = 0.5 - (180 / 255) ** 2
    page = [0, half, half, 0.001, 0.0009 - (8 / 255) ** 2, (3 / 255) ** 2 - 0.0001]
    assert found["page_error"] == pytest.approx(sum(map(abs, page)) / 6, rel=1e-3)


@pytest.mark.slow
def test_pages_are_written_opened_and_tabled(model, tmp_path, monkeypatch):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver")
    out = tmp_path / "pages"
    arguments = ["", str(out), "--model", model, "--lengths", "33", "--seconds", "30"]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark_attention_page.main()
    rows = json.loads(out.with_name("pages.json").read_text())
    ours = [row for row in rows if row.get("contender") == "cat_jax"]
    assert [row["layers"] for row in ours] == [3, 1]
    for row in ours:
        assert 40_000 < row["bytes"] < 200_000
        assert 0 < row["open_seconds"] < 30
        assert row["loads"] == []
        assert row["failed"] == ""
    page = out.with_name("pages.md").read_text()
    assert f"| 33 | 3 | cat\\_jax | {ours[0]['bytes'] / 1e6:,.1f} MB |" in page


def test_a_missing_browser_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="apt-get install chromium"):
        open_browser(tmp_path)
